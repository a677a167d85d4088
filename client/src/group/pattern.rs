//! Which topics a pattern stands for.

use std::fmt;
use std::sync::Arc;

/// All topics whose whole name matches, but for some.
#[derive(Clone)]
pub(crate) struct TopicPattern {
    regex: regex_lite::Regex,
    except: Option<Except>,
}

/// Says which topics are left out.
pub(crate) type Except = Arc<dyn Fn(&str) -> bool + Send + Sync>;

impl TopicPattern {
    /// # Errors
    /// What is wrong with the regular expression.
    pub(crate) fn new(pattern: &str, except: Option<Except>) -> Result<Self, regex_lite::Error> {
        Ok(Self { regex: regex_lite::Regex::new(&format!("^(?:{pattern})$"))?, except })
    }

    pub(crate) fn is_match(&self, topic: &str) -> bool {
        self.regex.is_match(topic) && self.except.as_ref().is_none_or(|except| !except(topic))
    }
}

impl fmt::Debug for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TopicPattern").field("regex", &self.regex.as_str()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_names_match_but_for_those_that_are_left_out() {
        let all = TopicPattern::new("a|b.*", None).unwrap();
        assert!(all.is_match("a") && all.is_match("b-dlt") && !all.is_match("ab") && !all.is_match("xb"));
        let some = TopicPattern::new("a|b.*", Some(Arc::new(|topic| topic.ends_with("-dlt")))).unwrap();
        assert!(some.is_match("a") && some.is_match("bc") && !some.is_match("b-dlt") && !some.is_match("c"));
        assert!(TopicPattern::new("(", None).is_err());
        assert_eq!(format!("{all:?}"), "TopicPattern { regex: \"^(?:a|b.*)$\", .. }");
    }
}
