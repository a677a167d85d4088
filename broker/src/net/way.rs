//! Whether records go to a socket by `sendfile` or are copied: which takes less of a processor differs between kernels,
//! file systems and machines, so that the first megabytes are sent in both ways, by turns, and measured.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// How many times each way is measured before the cheaper one is taken for good.
const SAMPLES: usize = 33;
/// A go that sent less says more about the socket than about the way.
const SAMPLE_BYTES_MIN: usize = 64 * 1024;

/// How records get from the kernel's memory of their file to a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// The kernel hands the file's pages on.
    Sendfile,
    /// They are read into a buffer and sent from there.
    Copying,
}

/// The way that all connections of a broker send by.
#[derive(Debug, Default)]
pub(super) struct Ways {
    decided: OnceLock<Way>,
    trial: Mutex<Trial>,
}

impl Ways {
    /// Always this one.
    #[cfg(test)]
    pub(super) fn always(way: Way) -> Self {
        Self { decided: OnceLock::from(way), trial: Mutex::default() }
    }

    /// Sends a part: `send` is told which way, and says how many bytes it sent.
    pub(super) fn send<T>(&self, send: impl FnOnce(Way) -> T, sent_bytes: impl FnOnce(&T) -> usize) -> T {
        if let Some(way) = self.decided.get() {
            return send(*way);
        }
        let way = self.trial().next();
        let begun_ns = thread_cpu_ns();
        let sent = send(way);
        let took_ns = thread_cpu_ns().saturating_sub(begun_ns);
        let mut trial = self.trial();
        trial.note(way, sent_bytes(&sent), took_ns);
        if let Some(decision) = trial.decision()
            && self.decided.set(decision.way).is_ok()
        {
            let Decision { way, sendfile_ns_per_mib, copying_ns_per_mib } = decision;
            tracing::info!(
                sendfile_ns_per_mib,
                copying_ns_per_mib,
                "records are sent by {}, which takes less of the processor here",
                match way {
                    Way::Sendfile => "sendfile",
                    Way::Copying => "copying",
                }
            );
        }
        sent
    }

    fn trial(&self) -> MutexGuard<'_, Trial> {
        self.trial.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The processor's time of this thread alone: what others do meanwhile says nothing about the way.
fn thread_cpu_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let (seconds, ns) = (u64::try_from(time.tv_sec), u64::try_from(time.tv_nsec));
    seconds.unwrap_or(0).saturating_mul(1_000_000_000).saturating_add(ns.unwrap_or(0))
}

/// What was measured so far, in nanoseconds of a processor for a MiB. Pure.
#[derive(Debug, Default)]
struct Trial {
    sendfile: Vec<u64>,
    copying: Vec<u64>,
}

#[derive(Debug, PartialEq, Eq)]
struct Decision {
    way: Way,
    sendfile_ns_per_mib: u64,
    copying_ns_per_mib: u64,
}

impl Trial {
    /// The way that was measured less often.
    fn next(&self) -> Way {
        if self.copying.len() < self.sendfile.len() { Way::Copying } else { Way::Sendfile }
    }

    fn note(&mut self, way: Way, bytes: usize, took_ns: u64) {
        if bytes < SAMPLE_BYTES_MIN {
            return;
        }
        let samples = match way {
            Way::Sendfile => &mut self.sendfile,
            Way::Copying => &mut self.copying,
        };
        // Others may have measured meanwhile.
        if samples.len() < SAMPLES {
            samples.push(took_ns.saturating_mul(1 << 20) / bytes as u64);
        }
    }

    /// The way with the smaller median once both were measured; of two alike the one that takes no memory.
    fn decision(&self) -> Option<Decision> {
        let (sendfile_ns_per_mib, copying_ns_per_mib) = (median(&self.sendfile)?, median(&self.copying)?);
        let way = match copying_ns_per_mib < sendfile_ns_per_mib {
            true => Way::Copying,
            false => Way::Sendfile,
        };
        Some(Decision { way, sendfile_ns_per_mib, copying_ns_per_mib })
    }
}

/// Nothing before there are all of them.
fn median(samples: &[u64]) -> Option<u64> {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    sorted.get(SAMPLES / 2).copied().filter(|_| sorted.len() == SAMPLES)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    /// A trial in which a MiB takes so long, but for a few outliers.
    fn tried(sendfile_ns: u64, copying_ns: u64) -> Trial {
        let mut trial = Trial::default();
        for number in 0..2 * SAMPLES {
            assert_eq!(trial.decision(), None, "{number}");
            let way = trial.next();
            let took_ns = if way == Way::Sendfile { sendfile_ns } else { copying_ns };
            trial.note(way, MIB, if number % 10 < 2 { 50 * took_ns } else { took_ns });
        }
        trial
    }

    #[test]
    fn the_cheaper_way_is_taken_and_of_two_alike_sendfile() {
        for (sendfile, copying, way) in
            [(10, 9, Way::Copying), (10, 10, Way::Sendfile), (10, 11, Way::Sendfile), (0, 0, Way::Sendfile)]
        {
            let expected = Decision { way, sendfile_ns_per_mib: sendfile, copying_ns_per_mib: copying };
            assert_eq!(tried(sendfile, copying).decision(), Some(expected));
        }
    }

    #[test]
    fn both_ways_are_tried_by_turns_and_small_goes_do_not_count() {
        let mut trial = Trial::default();
        assert_eq!(trial.next(), Way::Sendfile);
        trial.note(Way::Sendfile, SAMPLE_BYTES_MIN - 1, 1);
        assert_eq!((trial.next(), trial.sendfile.len()), (Way::Sendfile, 0));
        trial.note(Way::Sendfile, SAMPLE_BYTES_MIN, 3);
        assert_eq!((trial.next(), &trial.sendfile[..]), (Way::Copying, &[48][..]));
        trial.note(Way::Copying, 2 * MIB, 4);
        assert_eq!((trial.next(), &trial.copying[..]), (Way::Sendfile, &[2][..]));
    }

    #[test]
    fn more_than_is_asked_for_changes_nothing() {
        let mut trial = tried(10, 20);
        let before = trial.decision();
        (0..SAMPLES).for_each(|_| trial.note(Way::Sendfile, MIB, 1_000));
        assert_eq!(trial.decision(), before);
    }

    #[test]
    fn what_was_decided_stays() {
        let ways = Ways::default();
        for _ in 0..2 * SAMPLES {
            assert!(ways.decided.get().is_none());
            let way = ways.send(|way| way, |_| MIB);
            ways.trial().note(way, SAMPLE_BYTES_MIN - 1, 0);
        }
        let decided = *ways.decided.get().unwrap();
        assert_eq!((0..5).map(|_| ways.send(|way| way, |_| MIB)).collect::<Vec<_>>(), [decided; 5]);
        assert_eq!(Ways::always(Way::Copying).send(|way| way, |_| MIB), Way::Copying);
    }
}
