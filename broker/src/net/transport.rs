//! A stream as two halves: reading into a buffer, and writing responses, whose records go from file
//! to socket where they can.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use klamm_runtime::Stream;
use rustix::net::SendFlags;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::api::Response;
use crate::partition::StoredRecords;

/// Records up to this size are copied behind their header: one call to the kernel instead of three.
const COPY_UP_TO_BYTES: usize = 32 * 1024;
/// How much is sent from a file at a time, after a look at whether it is in memory.
const SENDFILE_BYTES: usize = 512 * 1024;
/// How much is read from a file at a time when it cannot be sent directly.
const CHUNK_BYTES: usize = 1024 * 1024;

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
}

#[derive(Debug)]
enum Sink {
    Tcp(Arc<Box<dyn Stream>>),
    Other(WriteHalf<Box<dyn Stream>>),
}

/// Splits a stream.
pub(super) fn split(stream: Box<dyn Stream>, stall: Duration) -> (Reader, Writer) {
    if stream.as_tcp().is_some() {
        let shared = Arc::new(stream);
        (Reader::Tcp(shared.clone()), Writer { sink: Sink::Tcp(shared), stall })
    } else {
        let (reader, writer) = tokio::io::split(stream);
        (Reader::Other(reader), Writer { sink: Sink::Other(writer), stall })
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
            return send_file(tcp(stream)?, self.stall, records).await;
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
async fn send_file(stream: &TcpStream, stall: Duration, records: &StoredRecords) -> io::Result<()> {
    let Some((file, start)) = records.as_file() else {
        return Err(io::Error::other("the records are in no file"));
    };
    let (mut done, mut in_memory_to) = (0, 0);
    while done < records.len() {
        if done >= in_memory_to {
            let part = SENDFILE_BYTES.min(records.len() - done);
            if !records.is_cached(done, part) {
                records.load(done, part).await?;
            }
            in_memory_to = done + part;
        }
        let mut position = start + done as u64;
        let send = || Ok(rustix::fs::sendfile(stream, file, Some(&mut position), in_memory_to - done)?);
        match stream.try_io(Interest::WRITABLE, send) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(sent) => done += sent,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                writable(stream, stall).await?;
                // That may have taken long.
                in_memory_to = done;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
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
