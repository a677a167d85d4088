//! What members tell their leader, and the leader them, beyond topics and partitions: versioned bytes.
//!
//! A version, and the oldest version whose readers understand it: whoever adds at the end leaves that as it is, and
//! readers of the old form read what they know. Numbers are LEB128. Bytes of strangers are refused, never a panic, and
//! take no more memory than some times their length.

use std::fmt;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use crate::streams::task::TaskId;

const VERSION: u8 = 1;

/// More tasks than an application has; what is beyond is left out, and costs a move at most.
const MOST_TASKS: usize = 20_000;

/// Longer names are none.
const MOST_NAME_BYTES: usize = 512;

/// What a member tells its leader.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in super::super) struct Told {
    /// Its state directory's name, which outlives the process.
    pub(in super::super) process: Arc<str>,
    pub(in super::super) threads: u32,
    /// Tells topologies apart whose tasks have other names.
    pub(in super::super) topology: u64,
    /// Where it can be queried.
    pub(in super::super) host: Option<Arc<str>>,
    /// The group's generation in which it ran these tasks.
    pub(in super::super) generation: i32,
    pub(in super::super) ran: Vec<TaskId>,
    /// What it has state of, and how many changelog records that lacks.
    pub(in super::super) lags: Vec<(TaskId, u64)>,
}

/// What the leader tells a member.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in super::super) struct Orders {
    pub(in super::super) standby: Vec<TaskId>,
    /// Tasks that move here when they have caught up.
    pub(in super::super) warming: Vec<TaskId>,
    /// Who has what, of those that can be queried.
    pub(in super::super) hosts: Vec<HostTasks>,
}

/// The tasks of an instance that can be queried.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in super::super) struct HostTasks {
    pub(in super::super) host: Arc<str>,
    pub(in super::super) active: Vec<TaskId>,
    pub(in super::super) standby: Vec<TaskId>,
}

/// Bytes that are not of this format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed(&'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Told {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = begin();
        put_name(&mut out, &self.process);
        put(&mut out, self.threads.into());
        put(&mut out, self.topology);
        put_name(&mut out, self.host.as_deref().unwrap_or(""));
        put(&mut out, u64::try_from(self.generation).unwrap_or(0));
        put_tasks(&mut out, &self.ran);
        let lags = &self.lags[..self.lags.len().min(MOST_TASKS)];
        put(&mut out, lags.len() as u64);
        for (task, lag) in lags {
            put_task(&mut out, *task);
            put(&mut out, *lag);
        }
        out.freeze()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::begin(bytes)?;
        Ok(Self {
            process: reader.name()?,
            threads: u32::try_from(reader.number()?).unwrap_or(u32::MAX),
            topology: reader.number()?,
            host: Some(reader.name()?).filter(|host| !host.is_empty()),
            generation: i32::try_from(reader.number()?).unwrap_or(i32::MAX),
            ran: reader.tasks()?,
            lags: reader.list(3, |reader| Ok((reader.task()?, reader.number()?)))?,
        })
    }
}

impl Orders {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = begin();
        put_tasks(&mut out, &self.standby);
        put_tasks(&mut out, &self.warming);
        put(&mut out, self.hosts.len() as u64);
        for HostTasks { host, active, standby } in &self.hosts {
            put_name(&mut out, host);
            put_tasks(&mut out, active);
            put_tasks(&mut out, standby);
        }
        out.freeze()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::begin(bytes)?;
        Ok(Self {
            standby: reader.tasks()?,
            warming: reader.tasks()?,
            hosts: reader.list(3, |reader| {
                Ok(HostTasks { host: reader.name()?, active: reader.tasks()?, standby: reader.tasks()? })
            })?,
        })
    }
}

fn begin() -> BytesMut {
    let mut out = BytesMut::new();
    out.put_slice(&[VERSION, VERSION]);
    out
}

fn put(out: &mut BytesMut, mut number: u64) {
    while number >= 0x80 {
        out.put_u8((number as u8 & 0x7f) | 0x80);
        number >>= 7;
    }
    out.put_u8(number as u8);
}

fn put_name(out: &mut BytesMut, name: &str) {
    let name = if name.len() > MOST_NAME_BYTES { "" } else { name };
    put(out, name.len() as u64);
    out.put_slice(name.as_bytes());
}

fn put_task(out: &mut BytesMut, task: TaskId) {
    put(out, task.sub_topology as u64);
    put(out, u64::try_from(task.partition).unwrap_or(0));
}

fn put_tasks(out: &mut BytesMut, tasks: &[TaskId]) {
    let tasks = &tasks[..tasks.len().min(MOST_TASKS)];
    put(out, tasks.len() as u64);
    tasks.iter().for_each(|task| put_task(out, *task));
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn begin(bytes: &'a [u8]) -> Result<Self, Malformed> {
        match bytes {
            [version, readable_from, rest @ ..]
                if (1..=VERSION).contains(readable_from) && version >= readable_from =>
            {
                Ok(Self(rest))
            }
            [_, _, ..] => Err(Malformed("a version that is not known here")),
            _ => Err(Malformed("it ends too early")),
        }
    }

    fn number(&mut self) -> Result<u64, Malformed> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or(Malformed("it ends too early"))?;
            self.0 = rest;
            let part = u64::from(byte & 0x7f);
            if part << shift >> shift != part {
                break;
            }
            number |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Malformed("a number beyond 64 bits"))
    }

    fn name(&mut self) -> Result<Arc<str>, Malformed> {
        let len = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        if len > MOST_NAME_BYTES {
            return Err(Malformed("a name that is too long"));
        }
        let (name, rest) = self.0.split_at_checked(len).ok_or(Malformed("it ends too early"))?;
        self.0 = rest;
        std::str::from_utf8(name).map(Arc::from).map_err(|_| Malformed("a name that is not UTF-8"))
    }

    fn task(&mut self) -> Result<TaskId, Malformed> {
        let sub_topology = usize::try_from(self.number()?);
        let partition = i32::try_from(self.number()?);
        match (sub_topology, partition) {
            (Ok(sub_topology), Ok(partition)) => Ok(TaskId { sub_topology, partition }),
            _ => Err(Malformed("a task that cannot be")),
        }
    }

    fn tasks(&mut self) -> Result<Vec<TaskId>, Malformed> {
        self.list(2, Self::task)
    }

    /// Things that take at least so many bytes each.
    fn list<T>(
        &mut self,
        least_bytes: usize,
        mut read: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let count = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        if count.checked_mul(least_bytes).is_none_or(|bytes| bytes > self.0.len()) {
            return Err(Malformed("a count beyond the end"));
        }
        (0..count).map(|_| read(self)).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tasks() -> impl Strategy<Value = Vec<TaskId>> {
        let task = (0..300_usize, 0..i32::MAX);
        let task = task.prop_map(|(sub_topology, partition)| TaskId { sub_topology, partition });
        prop::collection::vec(task, 0..9)
    }

    proptest! {
        #[test]
        fn bytes_of_strangers_are_refused_and_never_a_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (Told::decode(&bytes), Orders::decode(&bytes));
            if let [version, from, ..] = &mut bytes[..] {
                (*version, *from) = (VERSION, VERSION);
            }
            let _ = (Told::decode(&bytes), Orders::decode(&bytes));
        }

        #[test]
        fn what_is_told_is_heard_also_when_a_later_version_adds_to_it(
            (ran, held, lag) in (tasks(), tasks(), any::<u64>()),
            (host, generation) in ("[a-z.:0-9]{0,40}", 0..i32::MAX),
            more in prop::collection::vec(any::<u8>(), 0..20),
            cut in 0..40_usize,
        ) {
            let host: Arc<str> = host.into();
            let told = Told {
                process: "p".into(),
                threads: 3,
                topology: lag,
                host: Some(Arc::clone(&host)).filter(|host| !host.is_empty()),
                generation,
                ran: ran.clone(),
                lags: held.iter().map(|task| (*task, lag)).collect(),
            };
            let hosts = vec![HostTasks { host, active: held, standby: ran.clone() }];
            let orders = Orders { standby: ran.clone(), warming: ran, hosts };
            let mut bytes = told.encode().to_vec();
            prop_assert_eq!(Told::decode(&bytes), Ok(told.clone()));
            prop_assert_eq!(Orders::decode(&orders.encode()), Ok(orders));
            bytes[0] = 9;
            bytes.extend(more);
            prop_assert_eq!(Told::decode(&bytes), Ok(told));
            bytes[1] = 9;
            prop_assert!(Told::decode(&bytes).is_err(), "one that has to be known is not guessed at");
            bytes.truncate(cut);
            let _ = Told::decode(&bytes);
        }
    }

    #[test]
    fn a_count_takes_no_memory_before_it_is_believed() {
        let mut bytes = vec![1, 1];
        bytes.extend([0xff; 9]);
        bytes.push(1);
        assert!(Orders::decode(&bytes).is_err());
        assert!(Told::decode(&[]).is_err());
    }
}
