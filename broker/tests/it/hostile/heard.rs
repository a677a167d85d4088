//! What the broker says while it is attacked: no defect, no line a stranger can repeat at will, nothing that a stranger
//! sent.

use std::collections::BTreeMap;
use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Level, Metadata, Subscriber};

/// What strangers send and nobody may repeat: it stands in values, client ids and secrets.
pub(super) const PRIVATE: &str = "pr1vate-w0rds";
/// Of each kind of line this many are more than a second's.
const AT_ONCE: usize = 1;

/// What was said on this thread since [`Heard::listen`].
#[derive(Clone, Default)]
pub(super) struct Heard(Arc<Mutex<Lines>>);

#[derive(Default)]
struct Lines {
    /// Warnings, by the place in the code that they come from: how many, and the last.
    warnings: BTreeMap<String, (usize, String)>,
    /// What must not be said at all.
    wrong: Vec<String>,
    /// Warnings and errors.
    all: Vec<String>,
}

impl Heard {
    pub(super) fn listen() -> (Self, DefaultGuard) {
        let heard = Self::default();
        let guard = tracing::subscriber::set_default(heard.clone());
        (heard, guard)
    }

    /// Holds what was said within `elapsed` against the rules, and forgets it.
    #[track_caller]
    pub(super) fn check(&self, elapsed: Duration, what: &str) {
        let Lines { warnings, wrong, .. } = std::mem::take(&mut *self.0.lock().unwrap());
        assert!(wrong.is_empty(), "{what}: {wrong:?}");
        let most = AT_ONCE + elapsed.as_secs() as usize + 1;
        for (place, (count, last)) in warnings {
            assert!(count <= most, "{what}: {count} lines within {elapsed:?} from {place}: {last}");
        }
    }

    /// Only whether there was a defect.
    #[track_caller]
    pub(super) fn no_defect(&self, what: &str) {
        let lines = std::mem::take(&mut *self.0.lock().unwrap());
        let wrong: Vec<_> = lines.wrong.iter().filter(|line| line.contains("panicked")).collect();
        assert!(wrong.is_empty(), "{what}: {wrong:?}");
    }

    /// All warnings and errors.
    pub(super) fn all(&self) -> String {
        self.0.lock().unwrap().all.join("\n")
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }
}

impl Subscriber for Heard {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let mut line = Line(metadata.level().to_string());
        event.record(&mut line);
        let mut lines = self.0.lock().unwrap();
        // Defects are told as errors.
        if *metadata.level() == Level::ERROR || line.0.contains(PRIVATE) {
            lines.wrong.push(line.0.clone());
        }
        lines.all.push(line.0.clone());
        if *metadata.level() == Level::WARN {
            let place =
                format!("{}:{}", metadata.file().unwrap_or_default(), metadata.line().unwrap_or_default());
            let said = lines.warnings.entry(place).or_default();
            (said.0, said.1) = (said.0 + 1, line.0);
        }
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[test]
fn what_must_not_be_said_is_noticed() {
    let second = Duration::from_secs(1);
    for (wrong, say) in [
        (false, Box::new(|| tracing::warn!("once")) as Box<dyn Fn()>),
        (true, Box::new(|| (0..9).for_each(|_| tracing::warn!("again and again")))),
        (true, Box::new(|| tracing::error!("a background task panicked"))),
        (true, Box::new(|| tracing::warn!(client = PRIVATE, "who is there"))),
        (false, Box::new(|| (0..9).for_each(|_| tracing::info!("what an operator wants to know")))),
    ] {
        let (heard, _guard) = Heard::listen();
        say();
        let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| heard.check(second, "said")));
        assert_eq!(checked.is_err(), wrong);
    }
}
