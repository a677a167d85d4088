//! The broker's side of the network: what has died sends nothing more.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use klamm_runtime::{Listener, MemoryNet, Net, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::disk::SimDisk;

/// The network of one process.
#[derive(Debug)]
pub(super) struct SimNet {
    pub(super) net: Arc<MemoryNet>,
    pub(super) disk: SimDisk,
}

#[derive(Debug)]
struct SimListener {
    listener: Box<dyn Listener>,
    disk: SimDisk,
}

#[derive(Debug)]
struct SimStream {
    stream: Box<dyn Stream>,
    disk: SimDisk,
}

#[async_trait]
impl Net for SimNet {
    async fn connect(&self, address: &str) -> io::Result<Box<dyn Stream>> {
        self.net.connect(address).await
    }

    async fn bind(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        let listener = self.net.bind(address).await?;
        Ok(Box::new(SimListener { listener, disk: self.disk.clone() }))
    }
}

#[async_trait]
impl Listener for SimListener {
    async fn accept(&mut self) -> io::Result<(Box<dyn Stream>, String)> {
        let (stream, peer) = self.listener.accept().await?;
        Ok((Box::new(SimStream { stream, disk: self.disk.clone() }), peer))
    }

    fn local_address(&self) -> String {
        self.listener.local_address()
    }
}

impl Stream for SimStream {}

impl AsyncRead for SimStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.disk.is_of_the_dead() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
