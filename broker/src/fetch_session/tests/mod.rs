//! Fetch sessions as clients see them: rules one by one (`rules`), and random histories against a model (`histories`).

mod histories;
mod rules;
