//! A link that breaks: it carries bytes to the broker and back, and can be cut after so many.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

/// Bytes that are read at one time.
const BUFFER_BYTES: usize = 1024;
const UNBOUNDED: usize = usize::MAX;

/// Dropping it takes no more connections.
pub(super) struct Relay {
    pub(super) port: u16,
    /// Bytes to the device before the cut.
    left: Arc<AtomicUsize>,
    listening: AbortHandle,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Relay {
    /// Carries connections to a port of this machine.
    pub(super) async fn start(broker: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let left = Arc::new(AtomicUsize::new(UNBOUNDED));
        let listening = tokio::spawn(listen(listener, broker, left.clone())).abort_handle();
        Ok(Self { port, left, listening })
    }

    /// Cuts a connection when so many more bytes have gone to the device; once.
    pub(super) fn cut_after(&self, bytes: usize) {
        self.left.store(bytes, Ordering::Relaxed);
    }
}

async fn listen(listener: TcpListener, broker: u16, left: Arc<AtomicUsize>) {
    while let Ok((device, _)) = listener.accept().await {
        let left = left.clone();
        // It ends with one of its sides, or at the cut.
        tokio::spawn(async move { carry(device, broker, &left).await });
    }
}

async fn carry(device: TcpStream, port: u16, left: &AtomicUsize) -> io::Result<()> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let broker = TcpStream::connect(address).await?;
    device.set_nodelay(true)?;
    broker.set_nodelay(true)?;
    let (from_broker, mut to_broker) = broker.into_split();
    let (mut from_device, to_device) = device.into_split();
    tokio::select! {
        result = copy(&mut from_device, &mut to_broker) => result.map(drop),
        result = carry_down(from_broker, to_device, left) => result,
    }
}

async fn carry_down(
    mut from_broker: OwnedReadHalf,
    mut to_device: OwnedWriteHalf,
    left: &AtomicUsize,
) -> io::Result<()> {
    let mut buffer = [0; BUFFER_BYTES];
    loop {
        let count = from_broker.read(&mut buffer).await?;
        let room = left.load(Ordering::Relaxed);
        to_device.write_all(&buffer[..count.min(room)]).await?;
        if count > room {
            left.store(UNBOUNDED, Ordering::Relaxed);
            return Ok(());
        }
        if count == 0 {
            return Ok(());
        }
        if room != UNBOUNDED {
            left.store(room - count, Ordering::Relaxed);
        }
    }
}
