//! An embeddable broker.
