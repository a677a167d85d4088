//! Tests of the coordinator: stories of single groups, what happens at each deadline, who is refused what, and random
//! histories that check what must always hold.

mod deadlines;
mod random;
mod refusals;
mod retention;
mod rollback;
mod sim;
mod static_members;
mod stories;
