//! Nothing: this package exists for its dependency on the sources of librdkafka.
