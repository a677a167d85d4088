//! Tests of the coordinator: stories of single groups, and random ones that check what must always hold.

mod random;
mod sim;
mod stories;
