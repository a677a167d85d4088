//! The network seam: connect, listen, and byte streams; TCP is the implementation for production.

use std::fmt;
use std::io;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};

/// A network on which addresses can be connected to and listened on.
#[async_trait]
pub trait Net: Send + Sync + fmt::Debug + 'static {
    /// Opens a stream to `address` (`host:port`).
    ///
    /// # Errors
    /// When the address does not resolve or nobody listens there. There is no timeout here; callers bring their own.
    async fn connect(&self, address: &str) -> io::Result<Box<dyn Stream>>;

    /// Listens on `address` (`host:port`); port 0 takes a free port, told by [`Listener::local_address`].
    ///
    /// # Errors
    /// When the address is taken or not local.
    async fn bind(&self, address: &str) -> io::Result<Box<dyn Listener>>;
}

/// A two-way byte stream.
pub trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin + fmt::Debug + 'static {
    /// The TCP stream underneath, where there is one and bytes go through unchanged: what `sendfile` needs.
    fn as_tcp(&self) -> Option<&TcpStream> {
        None
    }
}

/// Accepts streams on one address.
#[async_trait]
pub trait Listener: Send + Sync + fmt::Debug + 'static {
    /// Waits for the next stream; gives it with the peer's address. Cancel-safe.
    ///
    /// # Errors
    /// What the operating system says of one accept; the listener stays usable.
    async fn accept(&mut self) -> io::Result<(Box<dyn Stream>, String)>;

    /// The address listened on, with the real port.
    fn local_address(&self) -> String;
}

/// TCP with `TCP_NODELAY`: the protocol batches by itself, and Nagle's algorithm would only delay it.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpNet;

/// How many connections the kernel keeps waiting for `accept`.
const LISTEN_BACKLOG: u32 = 1_024;

#[async_trait]
impl Net for TcpNet {
    async fn connect(&self, address: &str) -> io::Result<Box<dyn Stream>> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }

    async fn bind(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        let mut last_error =
            io::Error::new(io::ErrorKind::AddrNotAvailable, "the address resolves to nothing");
        for resolved in lookup_host(address).await? {
            match listen_on(resolved) {
                Ok(listener) => return Ok(Box::new(listener)),
                Err(error) => last_error = error,
            }
        }
        Err(last_error)
    }
}

fn listen_on(address: std::net::SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restarted broker must get its port back while old connections are still in TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(LISTEN_BACKLOG)
}

impl Stream for TcpStream {
    fn as_tcp(&self) -> Option<&TcpStream> {
        Some(self)
    }
}

#[async_trait]
impl Listener for TcpListener {
    async fn accept(&mut self) -> io::Result<(Box<dyn Stream>, String)> {
        let (stream, peer) = TcpListener::accept(self).await?;
        stream.set_nodelay(true)?;
        Ok((Box::new(stream), peer.to_string()))
    }

    fn local_address(&self) -> String {
        self.local_addr().map_or_else(|error| format!("unknown ({error})"), |address| address.to_string())
    }
}
