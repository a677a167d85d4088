//! The texts of W3C's trace context and baggage, as they come in headers: from anybody, of any length. What does not
//! hold is left out; nothing here fails, or looks at more than the limits. Pure.

use std::fmt;

/// Bytes of a `tracestate` that are passed on, at most; and its members.
const STATE_BYTES_MAX: usize = 512;
const STATE_MEMBERS_MAX: usize = 32;
/// Bytes of a `baggage` that are passed on, at most; and its members.
const BAGGAGE_BYTES_MAX: usize = 8_192;
const BAGGAGE_MEMBERS_MAX: usize = 64;

/// A `traceparent`: the trace, and the span in it that caused what comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TraceParent {
    pub(super) trace_id: [u8; 16],
    pub(super) span_id: [u8; 8],
    pub(super) flags: u8,
}

impl TraceParent {
    /// `None`: it is not one.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let (first, rest) = text.split_at_checked(55)?;
        let [version] = hex(first.get(..2)?)?;
        let fits = match version {
            0 => rest.is_empty(),
            0xff => false,
            // Later versions may say more behind a dash.
            _ => rest.first().is_none_or(|next| *next == b'-'),
        };
        let has_dashes = [2, 35, 52].into_iter().all(|at| first.get(at) == Some(&b'-'));
        let (trace_id, span_id) = (hex(first.get(3..35)?)?, hex(first.get(36..52)?)?);
        let [flags] = hex(first.get(53..55)?)?;
        let is_parent = fits && has_dashes && trace_id != [0; 16] && span_id != [0; 8];
        is_parent.then_some(Self { trace_id, span_id, flags })
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("00-")?;
        self.trace_id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("-")?;
        self.span_id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        // Of the flags of a later version nobody knows what they mean beyond this one.
        write!(f, "-{:02x}", self.flags & 1)
    }
}

/// Lower-case hex digits, as the standard wants them.
fn hex<const BYTES: usize>(digits: &[u8]) -> Option<[u8; BYTES]> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; BYTES];
    if digits.len() != 2 * BYTES {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// The `tracestate` of several headers, in order. Wholly left out if a member is none; cut behind a member if it is too
/// long.
pub(super) fn trace_state<'a>(texts: impl Iterator<Item = &'a [u8]>) -> Option<String> {
    let mut list = List::new(STATE_BYTES_MAX, STATE_MEMBERS_MAX);
    for member in texts.flat_map(members) {
        if !is_state(member) {
            return None;
        }
        if !list.add(member) {
            break;
        }
    }
    list.text()
}

/// The `baggage` of several headers, in order, without what is none, and cut behind a member if it is too long.
pub(super) fn baggage<'a>(texts: impl Iterator<Item = &'a [u8]>) -> Option<String> {
    let mut list = List::new(BAGGAGE_BYTES_MAX, BAGGAGE_MEMBERS_MAX);
    // What is none counts too, or a megabyte of it would be looked at.
    let looked_at = texts.flat_map(members).take(BAGGAGE_MEMBERS_MAX);
    looked_at.filter(|member| is_baggage(member)).all(|member| list.add(member));
    list.text()
}

/// The members of one header; of no more of it than the longest may have.
fn members(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let seen = &text[..text.len().min(BAGGAGE_BYTES_MAX + 1)];
    let is_cut = seen.len() < text.len();
    let whole = if is_cut { seen.iter().rposition(|byte| *byte == b',').unwrap_or(0) } else { seen.len() };
    seen[..whole].split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}

fn is_state(member: &[u8]) -> bool {
    let Some(at) = member.iter().position(|byte| *byte == b'=') else { return false };
    let (key, value) = (&member[..at], &member[at + 1..]);
    let is_key = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@');
    let begins = key.first().is_some_and(|first| first.is_ascii_lowercase() || first.is_ascii_digit());
    let is_value = |byte: &u8| matches!(byte, 0x20..=0x7e) && *byte != b'=';
    let in_length = key.len() <= 256 && !value.is_empty() && value.len() <= 256;
    begins && in_length && key.iter().all(is_key) && value.iter().all(is_value)
}

fn is_baggage(member: &[u8]) -> bool {
    let Some(at) = member.iter().position(|byte| *byte == b'=') else { return false };
    let key = member[..at].trim_ascii();
    let is_key = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let is_text = |byte: &u8| matches!(byte, 0x20..=0x7e | b'\t');
    !key.is_empty() && key.iter().all(is_key) && member.iter().all(is_text)
}

/// Members put together again, within limits.
struct List {
    text: String,
    members: usize,
    bytes_max: usize,
    members_max: usize,
}

impl List {
    fn new(bytes_max: usize, members_max: usize) -> Self {
        Self { text: String::new(), members: 0, bytes_max, members_max }
    }

    /// `false`: there is no room.
    fn add(&mut self, member: &[u8]) -> bool {
        let Ok(member) = std::str::from_utf8(member) else { return true };
        let comma = usize::from(self.members > 0);
        if self.members == self.members_max || self.text.len() + comma + member.len() > self.bytes_max {
            return false;
        }
        if comma > 0 {
            self.text.push(',');
        }
        self.text.push_str(member);
        self.members += 1;
        true
    }

    fn text(self) -> Option<String> {
        (self.members > 0).then_some(self.text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_parent_is_read_and_written() {
        let parent = TraceParent::parse(PARENT.as_bytes()).unwrap();
        assert_eq!((parent.trace_id[0], parent.span_id[7], parent.flags), (0x4b, 0xb7, 1));
        assert_eq!(parent.to_string(), PARENT);
        let later = format!("cc{}-what the future knows", &PARENT[2..]);
        assert_eq!(TraceParent::parse(later.as_bytes()).unwrap().to_string(), PARENT);
        let flags = format!("{}ff", &PARENT[..53]);
        assert_eq!(TraceParent::parse(flags.as_bytes()).unwrap().to_string(), PARENT);
    }

    #[test]
    fn what_is_no_parent_is_none() {
        let with = |at: usize, text: &str| format!("{}{text}{}", &PARENT[..at], &PARENT[at + text.len()..]);
        let wrong = [
            String::new(),
            PARENT[..54].to_owned(),
            format!("{PARENT}-"),
            format!("cc{}x", &PARENT[2..]),
            with(0, "ff"),
            with(2, "_"),
            with(3, "4B"),
            with(3, &"0".repeat(32)),
            with(36, &"0".repeat(16)),
            with(53, "g1"),
            with(10, "é"),
            "-".repeat(55),
        ];
        for text in wrong {
            assert_eq!(TraceParent::parse(text.as_bytes()), None, "{text}");
        }
    }

    fn state(texts: &[&str]) -> Option<String> {
        trace_state(texts.iter().map(|text| text.as_bytes()))
    }

    fn carried(texts: &[&str]) -> Option<String> {
        baggage(texts.iter().map(|text| text.as_bytes()))
    }

    #[test]
    fn a_state_is_put_together_or_left_out() {
        assert_eq!(state(&["a=1 , b@c=x y", "", "d=4"]).as_deref(), Some("a=1,b@c=x y,d=4"));
        for wrong in ["a", "=1", "A=1", "a=", "a=1=2", "a=\u{7f}", "a=é"] {
            assert_eq!(state(&["ok=1", wrong]), None, "{wrong}");
        }
        let many: Vec<String> = (0..40).map(|n| format!("k{n}=v")).collect();
        assert_eq!(state(&[&many.join(",")]).unwrap().split(',').count(), 32);
        let long =
            [format!("a={}", "v".repeat(250)), format!("b={}", "v".repeat(250)), "c=cccccccc".to_owned()];
        assert_eq!(state(&[&long.join(",")]), Some(long[..2].join(",")), "cut behind a member");
    }

    #[test]
    fn baggage_loses_what_is_none() {
        let texts = ["user = 7;secret, é=1,no", "x=%20\"y\",=1,\u{1}=2"];
        assert_eq!(carried(&texts).as_deref(), Some("user = 7;secret,x=%20\"y\""));
        assert_eq!(carried(&[",,,"]), None);
        let long = format!("a=1,b={}", "v".repeat(9_000));
        assert_eq!(carried(&[&long]).as_deref(), Some("a=1"), "a member that does not fit");
        let many = "k=v,".repeat(1_000_000);
        assert_eq!(carried(&[&many]).unwrap().split(',').count(), 64);
    }

    proptest! {
        /// Headers come from outside: whatever is in them, reading is an answer within the limits, and reads as itself.
        #[test]
        fn whatever_comes_is_read(bytes in proptest::collection::vec(any::<u8>(), 0..200), tail in "[ -~]{0,600}") {
            let texts = [&bytes[..], tail.as_bytes()];
            if let Some(parent) = texts.iter().find_map(|text| TraceParent::parse(text)) {
                let again = TraceParent::parse(parent.to_string().as_bytes());
                prop_assert_eq!(again.map(|read| read.trace_id), Some(parent.trace_id));
            }
            if let Some(state) = trace_state(texts.into_iter()) {
                prop_assert!(state.len() <= STATE_BYTES_MAX);
                prop_assert_eq!(trace_state([state.as_bytes()].into_iter()), Some(state.clone()));
            }
            if let Some(carried) = baggage(texts.into_iter()) {
                prop_assert!(carried.len() <= BAGGAGE_BYTES_MAX);
                prop_assert_eq!(baggage([carried.as_bytes()].into_iter()), Some(carried.clone()));
            }
        }
    }
}
