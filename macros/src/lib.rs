//! Macros of klamm.
