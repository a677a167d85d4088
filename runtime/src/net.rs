//! The network seam: connect, listen, and byte streams; TCP is the implementation for production.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};
use tokio::task::JoinSet;

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

/// How long one of a name's addresses may keep silent before the next is tried beside it; RFC 8305 recommends it.
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);

/// How many connections the kernel keeps waiting for `accept`.
const LISTEN_BACKLOG: u32 = 1_024;

#[async_trait]
impl Net for TcpNet {
    async fn connect(&self, address: &str) -> io::Result<Box<dyn Stream>> {
        let stream = connect_any(lookup_host(address).await?.collect()).await?;
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

/// Connects to the first of a name's addresses that answers. One that keeps silent does not keep the next from being
/// tried beside it (RFC 8305), and the two families take turns.
async fn connect_any(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut waiting = in_turns(addresses).into_iter();
    let mut attempts = JoinSet::new();
    let mut last_error = io::Error::new(io::ErrorKind::AddrNotAvailable, "the name resolves to no address");
    loop {
        match waiting.next() {
            Some(address) => drop(attempts.spawn(TcpStream::connect(address))),
            None if attempts.is_empty() => return Err(last_error),
            None => {}
        }
        let next_turn = async {
            match waiting.len() {
                0 => std::future::pending().await,
                _ => tokio::time::sleep(NEXT_ADDRESS_AFTER).await,
            }
        };
        tokio::select! {
            Some(ended) = attempts.join_next() => match ended {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last_error = error,
                Err(error) => last_error = io::Error::other(error),
            },
            () = next_turn => {}
        }
    }
}

/// The addresses with the two families in turn, each in the resolver's order and the resolver's first one first.
fn in_turns(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let rounds = first.len().max(second.len());
    (0..rounds).flat_map(|at| [first.get(at), second.get(at)]).flatten().copied().collect()
}

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
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

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    /// A listener whose queue is full: the kernel answers no further connection, like an address behind a firewall.
    async fn black_hole() -> (TcpListener, Vec<TcpStream>) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut held = Vec::new();
        let patience = Duration::from_millis(200);
        while let Ok(stream) = tokio::time::timeout(patience, TcpStream::connect(address)).await {
            held.push(stream.unwrap());
            assert!(held.len() < 50, "the queue never fills");
        }
        (listener, held)
    }

    #[tokio::test]
    async fn a_silent_address_does_not_hide_the_next() {
        let (silent, _held) = black_hole().await;
        let living = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addresses = vec![silent.local_addr().unwrap(), living.local_addr().unwrap()];
        let connect = tokio::time::timeout(Duration::from_secs(20), connect_any(addresses));
        assert_eq!(connect.await.unwrap().unwrap().peer_addr().unwrap(), living.local_addr().unwrap());
    }

    #[tokio::test]
    async fn the_last_failure_is_told_when_all_fail() {
        let gone = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
        let error = connect_any(vec![gone, gone]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(connect_any(Vec::new()).await.unwrap_err().kind(), io::ErrorKind::AddrNotAvailable);
    }

    #[test]
    fn families_take_turns() {
        let v4 = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let v6 = |port| SocketAddr::from((Ipv6Addr::LOCALHOST, port));
        assert_eq!(in_turns(vec![v6(1), v6(2), v6(3), v4(4)]), [v6(1), v4(4), v6(2), v6(3)]);
        assert_eq!(in_turns(vec![v4(1), v6(2), v6(3)]), [v4(1), v6(2), v6(3)]);
        assert!(in_turns(Vec::new()).is_empty());
    }
}
