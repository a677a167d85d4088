//! An in-memory network: what tests with a paused clock run on, because real sockets would not stand still.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::io::{DuplexStream, duplex};
use tokio::sync::mpsc;

use super::{Listener, Net, Stream};

/// How many bytes a stream holds before its writer waits, like a socket buffer.
const STREAM_BUFFER_BYTES: usize = 256 * 1024;
/// How many unaccepted connections an address holds before connecting waits.
const LISTEN_BACKLOG: usize = 128;
/// Where free ports start, as on Linux.
const FIRST_FREE_PORT: u16 = 32_768;

/// A network inside the process. Clones share it; two separate ones do not see each other.
#[derive(Debug, Clone, Default)]
pub struct MemoryNet {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    listeners: HashMap<String, mpsc::Sender<DuplexStream>>,
    ports_given: u16,
}

impl MemoryNet {
    /// A new network with nobody on it.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Net for MemoryNet {
    async fn connect(&self, address: &str) -> io::Result<Box<dyn Stream>> {
        let refused =
            || io::Error::new(io::ErrorKind::ConnectionRefused, format!("nobody listens on {address}"));
        let listener = self.state().listeners.get(address).cloned().ok_or_else(refused)?;
        let (ours, theirs) = duplex(STREAM_BUFFER_BYTES);
        listener.send(theirs).await.map_err(|_| refused())?;
        Ok(Box::new(ours))
    }

    async fn bind(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        let mut state = self.state();
        let address = match address.strip_suffix(":0") {
            Some(host) => {
                state.ports_given += 1;
                format!("{host}:{}", FIRST_FREE_PORT + state.ports_given)
            }
            None => address.to_owned(),
        };
        if state.listeners.get(&address).is_some_and(|listener| !listener.is_closed()) {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, format!("{address} is taken")));
        }
        let (sender, incoming) = mpsc::channel(LISTEN_BACKLOG);
        state.listeners.insert(address.clone(), sender);
        Ok(Box::new(MemoryListener { address, incoming }))
    }
}

#[derive(Debug)]
struct MemoryListener {
    address: String,
    incoming: mpsc::Receiver<DuplexStream>,
}

#[async_trait]
impl Listener for MemoryListener {
    async fn accept(&mut self) -> io::Result<(Box<dyn Stream>, String)> {
        match self.incoming.recv().await {
            Some(stream) => Ok((Box::new(stream), "memory:0".to_owned())),
            None => Err(io::Error::new(
                io::ErrorKind::NotConnected,
                "the address was taken over by another listener",
            )),
        }
    }

    fn local_address(&self) -> String {
        self.address.clone()
    }
}

impl Stream for DuplexStream {}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn bytes_pass_both_ways_and_a_gone_listener_refuses() {
        let net = MemoryNet::new();
        let mut listener = net.bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_address();
        let mut client = net.connect(&address).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();

        client.write_all(b"ping").await.unwrap();
        let mut buffer = [0; 4];
        server.read_exact(&mut buffer).await.unwrap();
        server.write_all(b"pong").await.unwrap();
        client.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"pong");

        assert_eq!(net.bind(&address).await.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        assert_eq!(net.connect(&address).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        net.bind(&address).await.unwrap();
    }
}
