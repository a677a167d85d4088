//! Rows of a store in memory: those that are not committed, and those that were used lately.
//!
//! A core without I/O: [`EntryCache`] knows nothing of engines and serdes. Rows are bytes here, packed into pages
//! (`pages`, `slot`) and found by the hash of their key (`index`); nothing in them points to what they came from, so
//! what is held is what is counted. All caches of an application take their memory from one [`CacheBudget`].

mod budget;
mod entries;
mod index;
mod pages;
#[cfg(test)]
mod properties;
mod slot;

#[cfg(feature = "streams")]
pub(crate) use budget::Tell;
pub(crate) use budget::{CacheBudget, Share};
pub(crate) use entries::{EntryCache, hash};
pub(crate) use pages::Address;
