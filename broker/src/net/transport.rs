//! A stream as two halves: reading into a buffer, and writing responses, whose records go from file to socket where
//! they can.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use klamm_runtime::Stream;
use rustix::net::SendFlags;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::way::{Way, Ways};
use crate::api::Response;
use crate::partition::StoredRecords;

/// Records up to this size are copied behind their header: one call to the kernel instead of three.
const COPY_UP_TO_BYTES: usize = 32 * 1024;
/// How much is sent from a file at a time, after a look at whether it is in memory.
const PART_BYTES: usize = 512 * 1024;
/// How much is copied at a time.
const COPY_BYTES: usize = 128 * 1024;
/// How much is read from a file at a time when it cannot be sent directly.
const CHUNK_BYTES: usize = 1024 * 1024;

thread_local! {
    static COPIES: RefCell<Vec<u8>> = RefCell::new(vec![0; COPY_BYTES]);
}

/// The half that requests come from.
#[derive(Debug)]
pub(super) enum Reader {
    Tcp(Arc<Box<dyn Stream>>),
    Other(ReadHalf<Box<dyn Stream>>),
}

/// The half that responses go to.
#[derive(Debug)]
pub(super) struct Writer {
    sink: Sink,
    /// How long the peer may take no byte before it counts as gone.
    stall: Duration,
    ways: Arc<Ways>,
}

#[derive(Debug)]
enum Sink {
    Tcp(Arc<Box<dyn Stream>>),
    Other(WriteHalf<Box<dyn Stream>>),
}

/// Splits a stream.
pub(super) fn split(stream: Box<dyn Stream>, stall: Duration, ways: Arc<Ways>) -> (Reader, Writer) {
    if stream.as_tcp().is_some() {
        let shared = Arc::new(stream);
        (Reader::Tcp(shared.clone()), Writer { sink: Sink::Tcp(shared), stall, ways })
    } else {
        let (reader, writer) = tokio::io::split(stream);
        (Reader::Other(reader), Writer { sink: Sink::Other(writer), stall, ways })
    }
}

fn tcp(stream: &Arc<Box<dyn Stream>>) -> io::Result<&TcpStream> {
    stream.as_tcp().ok_or_else(|| io::Error::other("the stream is no longer TCP"))
}

impl Reader {
    /// Reads what there is, at least one byte, into the free room of `buffer`; 0 at the end of the stream. Cancel-safe.
    pub(super) async fn read(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Other(reader) => reader.read_buf(buffer).await,
            Self::Tcp(stream) => {
                let stream = tcp(stream)?;
                loop {
                    match stream.try_read_buf(buffer) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.readable().await?,
                        done => return done,
                    }
                }
            }
        }
    }
}

impl Writer {
    /// Sends a whole response.
    pub(super) async fn send(&mut self, response: Response) -> io::Result<()> {
        let Response { encoded, slices } = response;
        let spliced: usize = encoded.splices.iter().map(|splice| splice.len).sum();
        let slice_of = |token: u64| {
            let slice = usize::try_from(token).ok().and_then(|index| slices.get(index));
            slice.ok_or_else(|| io::Error::other("a response has no records for a splice"))
        };
        if spliced > 0 && spliced <= COPY_UP_TO_BYTES {
            let mut whole = BytesMut::with_capacity(encoded.total_len());
            let mut sent = 0;
            for splice in &encoded.splices {
                whole.extend_from_slice(&encoded.bytes[sent..splice.position]);
                let records = slice_of(splice.token)?;
                whole.extend_from_slice(&records.read(0, records.len()).await?);
                sent = splice.position;
            }
            whole.extend_from_slice(&encoded.bytes[sent..]);
            return self.send_bytes(whole.freeze(), false).await;
        }
        let mut sent = 0;
        for splice in &encoded.splices {
            self.send_bytes(encoded.bytes.slice(sent..splice.position), true).await?;
            self.send_slice(slice_of(splice.token)?).await?;
            sent = splice.position;
        }
        self.send_bytes(encoded.bytes.slice(sent..), false).await
    }

    /// With `more`, the kernel may wait for what follows before it sends a packet.
    async fn send_bytes(&mut self, mut bytes: Bytes, more: bool) -> io::Result<()> {
        match &mut self.sink {
            Sink::Other(writer) => match timeout(self.stall, writer.write_all(&bytes)).await {
                Ok(done) => done,
                Err(_) => Err(stalled()),
            },
            Sink::Tcp(stream) => {
                let stream = tcp(stream)?;
                let flags = if more { SendFlags::NOSIGNAL | SendFlags::MORE } else { SendFlags::NOSIGNAL };
                while !bytes.is_empty() {
                    let sent =
                        when_writable(stream, self.stall, || Ok(rustix::net::send(stream, &bytes, flags)?))
                            .await?;
                    let _ = bytes.split_to(sent);
                }
                Ok(())
            }
        }
    }

    async fn send_slice(&mut self, records: &StoredRecords) -> io::Result<()> {
        if let (Sink::Tcp(stream), Some(_)) = (&self.sink, records.as_file()) {
            return send_file(tcp(stream)?, self.stall, records, &self.ways).await;
        }
        let mut done = 0;
        while done < records.len() {
            let len = CHUNK_BYTES.min(records.len() - done);
            self.send_bytes(records.read(done, len).await?, true).await?;
            done += len;
        }
        Ok(())
    }
}

/// Sends records from their file. A page that is not in memory would hold the worker for as long as the disk takes, so
/// that each part is looked at first, and brought into memory by a disk thread where it is not there.
async fn send_file(
    stream: &TcpStream,
    stall: Duration,
    records: &StoredRecords,
    ways: &Ways,
) -> io::Result<()> {
    let (mut done, mut in_memory_to) = (0, 0);
    while done < records.len() {
        let part = Part { from: done, to: records.len().min(done + PART_BYTES), in_memory_to };
        let send = |way| match way {
            Way::Sendfile => part.send_pages(stream, records),
            Way::Copying => part.send_copies(stream, records),
        };
        let go = ways.send(send, |go| go.as_ref().map_or(0, |go| go.sent));
        let Go { sent, stopped_by } = go?;
        done += sent;
        match stopped_by {
            None => {}
            Some(Obstacle::FullSocket) => {
                writable(stream, stall).await?;
                // That may have taken long.
                in_memory_to = done;
            }
            Some(Obstacle::Disk) => {
                records.load(done, part.to - done).await?;
                in_memory_to = part.to;
            }
        }
    }
    Ok(())
}

/// How far a part got in one go, and what stopped it before its end.
struct Go {
    sent: usize,
    stopped_by: Option<Obstacle>,
}

enum Obstacle {
    FullSocket,
    /// What comes next is not in memory.
    Disk,
}

/// A part of some records. Nothing of it waits, if the system tells the truth about what is in memory.
#[derive(Clone, Copy)]
struct Part {
    from: usize,
    to: usize,
    /// Up to where it need not be looked at.
    in_memory_to: usize,
}

impl Part {
    fn send_pages(self, stream: &TcpStream, records: &StoredRecords) -> io::Result<Go> {
        let Some((file, start)) = records.as_file() else {
            return Err(io::Error::other("the records are in no file"));
        };
        if self.in_memory_to < self.to && !records.is_cached(self.from, self.to - self.from) {
            return Ok(Go { sent: 0, stopped_by: Some(Obstacle::Disk) });
        }
        self.send_all(stream, |done| {
            let mut position = start + (self.from + done) as u64;
            Ok(rustix::fs::sendfile(stream, file, Some(&mut position), self.to - self.from - done)?)
        })
    }

    /// The buffer is the thread's, and taken for no longer than this takes: peers that read slowly cost no memory.
    fn send_copies(self, stream: &TcpStream, records: &StoredRecords) -> io::Result<Go> {
        COPIES.with_borrow_mut(|buffer| {
            let mut sent = 0;
            while self.from + sent < self.to {
                let from = self.from + sent;
                let copy = &mut buffer[..COPY_BYTES.min(self.to - from)];
                let len = match records.read_into(copy, from, from < self.in_memory_to) {
                    Ok(0) if from < self.in_memory_to => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Ok(0) => return Ok(Go { sent, stopped_by: Some(Obstacle::Disk) }),
                    Ok(len) => len,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        return Ok(Go { sent, stopped_by: Some(Obstacle::Disk) });
                    }
                    Err(error) => return Err(error),
                };
                let part = Self { to: from + len, from, ..self };
                let more = part.to < records.len();
                let flags = if more { SendFlags::NOSIGNAL | SendFlags::MORE } else { SendFlags::NOSIGNAL };
                let go =
                    part.send_all(stream, |done| Ok(rustix::net::send(stream, &copy[done..len], flags)?))?;
                sent += go.sent;
                if go.stopped_by.is_some() {
                    return Ok(Go { sent, ..go });
                }
            }
            Ok(Go { sent, stopped_by: None })
        })
    }

    /// Sends with `send`, which is told how much of it is done, until all is or the socket is full.
    fn send_all(
        self,
        stream: &TcpStream,
        mut send: impl FnMut(usize) -> io::Result<usize>,
    ) -> io::Result<Go> {
        let mut sent = 0;
        while self.from + sent < self.to {
            match stream.try_io(Interest::WRITABLE, || send(sent)) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(more) => sent += more,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Go { sent, stopped_by: Some(Obstacle::FullSocket) });
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Go { sent, stopped_by: None })
    }
}

/// Tries `write` whenever the socket has room, until it is done.
async fn when_writable(
    stream: &TcpStream,
    stall: Duration,
    mut write: impl FnMut() -> io::Result<usize>,
) -> io::Result<usize> {
    loop {
        match stream.try_io(Interest::WRITABLE, &mut write) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => writable(stream, stall).await?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// Waits until the socket has room.
async fn writable(stream: &TcpStream, stall: Duration) -> io::Result<()> {
    timeout(stall, stream.writable()).await.unwrap_or_else(|_| Err(stalled()))
}

fn stalled() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the peer does not read its responses")
}

#[cfg(test)]
mod tests {
    use klamm_runtime::{Rng, SeededRng};
    use tokio::net::TcpListener;

    use super::*;
    use crate::disk::{Disk, FileDisk};

    /// Peers that stop now and then, and that read the rest at once, get what is in the file, whichever way it is sent.
    #[tokio::test]
    async fn both_ways_send_what_is_in_the_file() {
        let rng = SeededRng::new(7);
        let content: Vec<u8> = (0..9_000_000).map(|_| rng.below(256) as u8).collect();
        let dir = tempfile::tempdir().unwrap();
        let file = FileDisk::new().create(&dir.path().join("log")).unwrap();
        file.write_all_at(&content, 0).unwrap();
        for (way, from, len) in [
            (Way::Sendfile, 3, content.len() - 5),
            (Way::Copying, 3, content.len() - 5),
            (Way::Copying, 70_000, COPY_BYTES),
            (Way::Copying, 0, PART_BYTES + 1),
            (Way::Sendfile, 1, PART_BYTES + 1),
        ] {
            let records = StoredRecords::of_file(file.clone(), from as u64, len);
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let reading = async {
                let mut peer = TcpStream::connect(address).await.unwrap();
                let mut read = vec![0; len];
                let (first, rest) = read.split_at_mut(len / 3);
                peer.read_exact(first).await.unwrap();
                for _ in 0..100 {
                    tokio::task::yield_now().await;
                }
                peer.read_exact(rest).await.unwrap();
                read
            };
            let sending = async {
                let (stream, _) = listener.accept().await.unwrap();
                let ways = Ways::always(way);
                send_file(&stream, Duration::from_secs(20), &records, &ways).await.unwrap();
                stream
            };
            let (read, _open) = timeout(Duration::from_secs(30), async { tokio::join!(reading, sending) })
                .await
                .expect("it goes on");
            assert!(read == content[from..from + len], "{way:?} {from} {len}");
        }
    }

    /// The file ends before the records do: that is no reason to send for ever.
    #[tokio::test]
    async fn a_file_that_is_too_short_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = FileDisk::new().create(&dir.path().join("log")).unwrap();
        file.write_all_at(&[1; 1_000], 0).unwrap();
        let records = StoredRecords::of_file(file, 0, 2_000);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        for way in [Way::Sendfile, Way::Copying] {
            let ways = Ways::always(way);
            let sending = send_file(&stream, Duration::from_secs(20), &records, &ways);
            timeout(Duration::from_secs(20), sending).await.expect("it ends").unwrap_err();
        }
    }
}
