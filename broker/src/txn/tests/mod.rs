//! Tests of the transaction coordinator: stories of single ids, who is refused what, and random histories against a log
//! that is slow, refuses and loses power.

mod random;
mod records;
mod sim;
mod stories;
