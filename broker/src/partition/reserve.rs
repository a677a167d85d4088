//! How much room a log directory keeps free: who may still write, and when the disk is asked again. Pure.

use super::rules::AppendOrigin;
use crate::disk::Space;

/// How long what the disk said of its room counts.
const ASK_AGAIN_MS: i64 = 1_000;
/// After so many bytes it is asked sooner: others may write to the same file system.
const ASK_AGAIN_BYTES: u64 = 64 << 20;
/// Of a small file system no more than this part is kept free: it could not be used otherwise.
const LARGEST_PART: u64 = 20;
/// This part of the reserve is for nobody's records: checkpoints and snapshots, without which nothing could be deleted.
const LAST_PART: u64 = 4;

/// What is kept free in each log directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskReserve {
    /// `log.dir.reserve.bytes` (256 MiB, ours): clients may not write where less is free; 0 is no reserve. Of a small
    /// file system a twentieth at most. The broker's own records (offsets, markers, metadata) may use three quarters.
    pub bytes: u64,
}

impl Default for DiskReserve {
    fn default() -> Self {
        Self { bytes: 256 << 20 }
    }
}

impl DiskReserve {
    /// What has to stay free when these records are written to a file system of this size.
    fn limit(self, origin: AppendOrigin, total_bytes: u64) -> u64 {
        let for_clients = self.bytes.min(total_bytes / LARGEST_PART);
        match origin {
            AppendOrigin::Client => for_clients,
            AppendOrigin::Coordinator => for_clients / LAST_PART,
        }
    }
}

/// Why a batch may not be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoRoom {
    pub(super) free_bytes: u64,
    pub(super) reserve_bytes: u64,
}

/// What is news about the room of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// Clients may not write any more.
    Short(NoRoom),
    /// They may again.
    Enough {
        /// What is free.
        free_bytes: u64,
    },
}

/// Whether the disk has to be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asking {
    /// What is known will do.
    No,
    /// What is known will do for now, and is to be asked for anew while others write.
    Beside(Ask),
    /// Before anything is decided: by what is known it would be refused, or nothing is known.
    First(Ask),
}

/// One time that the disk is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ask {
    number: u64,
    /// How much had been written then.
    written_bytes: u64,
}

/// What is known of the room in a directory.
#[derive(Debug, Default)]
pub(super) struct Room {
    reserve: DiskReserve,
    known: Option<Known>,
    /// How much was written since the start.
    written_bytes: u64,
    /// How often the disk was asked, and which time was the last that it has answered.
    asked: u64,
    answered: u64,
    /// The time that somebody is asking beside.
    beside: Option<u64>,
    /// News was told that there is too little.
    short: bool,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    space: Space,
    at_ms: i64,
    /// How much had been written when it was asked for.
    written_bytes: u64,
}

impl Room {
    /// Keeps this free from now on.
    pub(super) fn set_reserve(&mut self, reserve: DiskReserve) {
        self.reserve = reserve;
        self.known = None;
    }

    /// Whether the disk has to be asked before so many bytes are written, or beside. Whoever is told to has to call
    /// [`Self::learn`] or [`Self::not_asked`]; until then nobody else asks beside.
    pub(super) fn begin_to_ask(&mut self, bytes: u64, now_ms: i64) -> Asking {
        if self.reserve.bytes == 0 {
            return Asking::No;
        }
        let ask = Ask { number: self.asked + 1, written_bytes: self.written_bytes };
        let Some(known) = self.known.as_mut() else {
            let space = Space::UNKNOWN;
            self.known = Some(Known { space, at_ms: now_ms, written_bytes: self.written_bytes });
            self.asked = ask.number;
            return Asking::First(ask);
        };
        let since = self.written_bytes - known.written_bytes;
        let left = known.space.free_bytes.saturating_sub(since);
        // A clock that was set back says nothing.
        let is_old = !(0..ASK_AGAIN_MS).contains(&now_ms.saturating_sub(known.at_ms));
        let is_due = is_old || since >= ASK_AGAIN_BYTES;
        let limit = self.reserve.limit(AppendOrigin::Client, known.space.total_bytes);
        let needed = limit.saturating_add(bytes);
        // By what was written since, and not by what the disk said.
        let has_become_short = left < needed && known.space.free_bytes >= needed;
        let asking = match left < needed {
            true if is_due || has_become_short => {
                known.at_ms = now_ms;
                Asking::First(ask)
            }
            false if is_due && self.beside.is_none() => {
                self.beside = Some(ask.number);
                Asking::Beside(ask)
            }
            _ => return Asking::No,
        };
        self.asked = ask.number;
        asking
    }

    /// What the disk said; nothing when it could not say. What was written since it was asked counts still: it may not
    /// have known of that.
    pub(super) fn learn(&mut self, ask: Ask, space: Option<Space>, now_ms: i64) -> Option<News> {
        self.not_asked(ask);
        if ask.number < self.answered {
            // It has said something later meanwhile.
            return None;
        }
        self.answered = ask.number;
        let space = space.unwrap_or(Space::UNKNOWN);
        self.known = Some(Known { space, at_ms: now_ms, written_bytes: ask.written_bytes });
        let (free_bytes, reserve_bytes) =
            (space.free_bytes, self.reserve.limit(AppendOrigin::Client, space.total_bytes));
        let short = free_bytes < reserve_bytes;
        if std::mem::replace(&mut self.short, short) == short {
            return None;
        }
        Some(match short {
            true => News::Short(NoRoom { free_bytes, reserve_bytes }),
            false => News::Enough { free_bytes },
        })
    }

    /// Nobody asks, after all.
    pub(super) fn not_asked(&mut self, ask: Ask) {
        self.beside.take_if(|beside| *beside == ask.number);
    }

    /// Whether so many bytes may be written, which are counted then.
    pub(super) fn take(&mut self, origin: AppendOrigin, bytes: u64) -> Result<(), NoRoom> {
        let Some(known) = self.known.filter(|_| self.reserve.bytes > 0) else { return Ok(()) };
        let reserve_bytes = self.reserve.limit(origin, known.space.total_bytes);
        let free_bytes = known.space.free_bytes.saturating_sub(self.written_bytes - known.written_bytes);
        if free_bytes < reserve_bytes.saturating_add(bytes) {
            return Err(NoRoom { free_bytes, reserve_bytes });
        }
        self.written_bytes += bytes;
        Ok(())
    }

    /// Whether clients could write nothing, as far as is known.
    pub(super) fn is_short(&self) -> bool {
        self.short
    }
}

#[cfg(test)]
mod tests {
    use klamm_runtime::{Rng, SeededRng};

    use super::*;

    const MIB: u64 = 1 << 20;
    const LARGE: u64 = 1 << 40;
    use AppendOrigin::{Client, Coordinator};

    fn room(free_bytes: u64) -> Room {
        let mut room = Room::default();
        let ask = first(room.begin_to_ask(0, 0));
        room.learn(ask, Some(Space { total_bytes: LARGE, free_bytes }), 0);
        room
    }

    fn first(asking: Asking) -> Ask {
        let Asking::First(ask) = asking else { panic!("{asking:?}") };
        ask
    }

    fn beside(asking: Asking) -> Ask {
        let Asking::Beside(ask) = asking else { panic!("{asking:?}") };
        ask
    }

    /// As if it was asked for just now.
    fn tell(room: &mut Room, space: Option<Space>, now_ms: i64) -> Option<News> {
        room.asked += 1;
        let ask = Ask { number: room.asked, written_bytes: room.written_bytes };
        room.learn(ask, space, now_ms)
    }

    #[test]
    fn clients_stop_at_the_reserve_and_the_brokers_own_records_at_a_quarter_of_it() {
        let mut at_the_limit = room(256 * MIB + 10);
        assert_eq!(at_the_limit.take(Client, 11).unwrap_err().reserve_bytes, 256 * MIB);
        assert_eq!(at_the_limit.take(Client, 10), Ok(()));
        let refused = NoRoom { free_bytes: 256 * MIB, reserve_bytes: 256 * MIB };
        assert_eq!(at_the_limit.take(Client, 1), Err(refused));
        assert_eq!(at_the_limit.take(Coordinator, 192 * MIB), Ok(()));
        let refused = NoRoom { free_bytes: 64 * MIB, reserve_bytes: 64 * MIB };
        assert_eq!(at_the_limit.take(Coordinator, 1), Err(refused));
    }

    #[test]
    fn a_small_file_system_keeps_a_twentieth_and_without_a_reserve_everything_may_be_used() {
        let mut small = Room::default();
        tell(&mut small, Some(Space { total_bytes: 2_000, free_bytes: 120 }), 0);
        assert_eq!(small.take(Client, 21).unwrap_err().reserve_bytes, 100);
        assert_eq!(small.take(Client, 20), Ok(()));
        assert_eq!(small.take(Coordinator, 75), Ok(()));
        assert_eq!(small.take(Coordinator, 1).unwrap_err().reserve_bytes, 25);

        small.set_reserve(DiskReserve { bytes: 0 });
        assert_eq!(small.begin_to_ask(1, 10_000), Asking::No);
        tell(&mut small, Some(Space { total_bytes: 2_000, free_bytes: 0 }), 0);
        assert_eq!((small.take(Client, 1_000), small.is_short()), (Ok(()), false));
    }

    #[test]
    fn the_disk_is_asked_once_a_second_or_after_many_bytes_or_where_it_matters() {
        let mut room = room(LARGE / 2);
        let space = |free_bytes| Some(Space { total_bytes: LARGE, free_bytes });
        assert_eq!(room.begin_to_ask(0, 999), Asking::No);
        let ask = beside(room.begin_to_ask(0, 1_000));
        assert_eq!(room.begin_to_ask(0, 1_000), Asking::No, "somebody asks already");
        assert_eq!(room.begin_to_ask(0, 5_000), Asking::No, "and may take long");
        room.not_asked(ask);
        let ask = beside(room.begin_to_ask(0, -1));
        room.learn(ask, space(LARGE / 2), -1);
        assert_eq!(room.begin_to_ask(0, 998), Asking::No);
        let ask = beside(room.begin_to_ask(0, 999));
        room.learn(ask, space(LARGE / 2), 999);
        room.take(Client, ASK_AGAIN_BYTES - 1).unwrap();
        assert_eq!(room.begin_to_ask(0, 999), Asking::No);
        room.take(Client, 1).unwrap();
        let ask = beside(room.begin_to_ask(0, 999));
        // Near the reserve it matters what others have freed since.
        room.learn(ask, space(256 * MIB + 100), 999);
        assert_eq!(room.begin_to_ask(101, 999), Asking::No, "it has just said so");
        let ask = first(room.begin_to_ask(101, 1_999));
        assert_eq!(room.begin_to_ask(101, 2_998), Asking::No, "somebody asks already");
        room.learn(ask, space(256 * MIB + 100), 1_999);
        room.take(Client, 50).unwrap();
        assert_eq!(room.begin_to_ask(50, 1_999), Asking::No);
        first(room.begin_to_ask(51, 1_999));
        // Each finds out: nobody is refused for nothing.
        first(room.begin_to_ask(51, 1_999));
        beside(room.begin_to_ask(50, 2_999));
    }

    #[test]
    fn what_is_written_while_the_disk_is_asked_counts_and_what_it_said_later_does() {
        let mut room = room(256 * MIB + 100);
        let space = |free_bytes| Some(Space { total_bytes: LARGE, free_bytes: 256 * MIB + free_bytes });
        room.take(Client, 30).unwrap();
        let early = beside(room.begin_to_ask(1, 1_000));
        room.take(Client, 40).unwrap();
        let late = first(room.begin_to_ask(31, 1_000));
        assert_eq!(room.learn(late, space(200), 1_000), None);
        assert_eq!(room.learn(early, space(70), 1_000), None, "that was before");
        assert_eq!(room.take(Client, 201).unwrap_err().free_bytes, 256 * MIB + 200);
        let ask = beside(room.begin_to_ask(1, 2_000));
        room.take(Client, 40).unwrap();
        room.learn(ask, space(200), 2_000);
        assert_eq!(room.take(Client, 161).unwrap_err().free_bytes, 256 * MIB + 160);
        room.take(Client, 160).unwrap();
    }

    #[test]
    fn a_disk_that_cannot_say_how_full_it_is_is_not_taken_for_full() {
        let mut room = Room::default();
        let ask = first(room.begin_to_ask(1, 0));
        assert_eq!(room.take(Client, 1 << 50), Ok(()));
        assert_eq!(room.learn(ask, None, 0), None);
        assert_eq!(room.take(Client, 1 << 50), Ok(()));
    }

    #[test]
    fn news_is_told_once() {
        let mut room = room(LARGE / 2);
        let space = |free_bytes| Some(Space { total_bytes: LARGE, free_bytes });
        let short = NoRoom { free_bytes: 256 * MIB - 1, reserve_bytes: 256 * MIB };
        assert_eq!(tell(&mut room, space(256 * MIB - 1), 1), Some(News::Short(short)));
        assert!(room.is_short());
        assert_eq!(tell(&mut room, space(5), 2), None);
        assert_eq!(tell(&mut room, space(256 * MIB), 3), Some(News::Enough { free_bytes: 256 * MIB }));
        assert_eq!((tell(&mut room, space(LARGE), 4), room.is_short()), (None, false));
    }

    /// Whatever is written by whom, freed and asked: no client's bytes go into the reserve, and no bytes into the last
    /// part of it, as long as nobody else writes.
    #[test]
    fn whatever_happens_the_reserve_stays_free() {
        for seed in 0..2_000 {
            let rng = SeededRng::new(seed);
            let (mut room, mut now_ms) = (Room::default(), 0);
            let total_bytes = 1_000 + rng.below(100_000);
            let reserve = DiskReserve { bytes: 1 + rng.below(8_000) };
            room.set_reserve(reserve);
            let mut free_bytes = rng.below(total_bytes);
            let (mut refused, mut late) = (0, None);
            for _ in 0..200 {
                now_ms += rng.below(400) as i64;
                let bytes = rng.below(900);
                if rng.below(20) == 0 {
                    free_bytes = total_bytes.min(free_bytes + rng.below(20_000));
                }
                let asking = room.begin_to_ask(bytes, now_ms);
                let said = Some(Space { total_bytes, free_bytes });
                match asking {
                    Asking::No => {}
                    Asking::Beside(ask) if rng.below(2) == 0 => late = Some((ask, said)),
                    Asking::Beside(ask) | Asking::First(ask) => drop(room.learn(ask, said, now_ms)),
                }
                let origin = if rng.below(2) == 0 { Client } else { Coordinator };
                match room.take(origin, bytes) {
                    Ok(()) => {
                        free_bytes -= bytes;
                        assert!(free_bytes >= reserve.limit(origin, total_bytes), "seed {seed}");
                    }
                    Err(_) => refused += 1,
                }
                // It may have said so before that was written.
                if let Some((ask, said)) = late.take_if(|_| rng.below(3) > 0) {
                    room.learn(ask, said, now_ms);
                }
            }
            // Room again: at the latest a second later it is seen.
            now_ms += ASK_AGAIN_MS;
            late.into_iter().for_each(|(ask, _)| room.not_asked(ask));
            let asking = room.begin_to_ask(1, now_ms);
            let (Asking::Beside(ask) | Asking::First(ask)) = asking else {
                panic!("seed {seed}, {refused} refused")
            };
            room.learn(ask, Some(Space { total_bytes, free_bytes: total_bytes }), now_ms);
            assert_eq!(room.take(Client, 1), Ok(()), "seed {seed}");
        }
    }
}
