//! Sockets of the system: TCP, and in the file system.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::stream::either_stream;
use crate::broker::Peer;
use crate::config::Bind;

/// A socket that listens.
#[derive(Debug)]
pub(super) enum Acceptor {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// A connected socket.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

either_stream!(Socket { Tcp, Unix });

/// The name of our socket in the file system. It goes with this value, unless somebody else has
/// taken the place meanwhile.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

/// Connections that may wait to be accepted; the system may allow fewer.
const BACKLOG: i32 = 4096;

/// Owner and group may connect.
const SOCKET_MODE: u32 = 0o660;

impl Acceptor {
    /// Binds the address or the path, and listens.
    pub(super) fn bind(to: &Bind) -> io::Result<Self> {
        match to {
            Bind::Tcp(address) => bind_tcp(*address).map(Self::Tcp),
            Bind::Unix(path) => bind_unix(path),
        }
    }

    /// Where it listens, with the port the system chose where none was given.
    pub(super) fn address(&self) -> io::Result<Bind> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(Bind::Tcp),
            Self::Unix(_, file) => Ok(Bind::Unix(file.path.clone())),
        }
    }

    /// Waits for a connection. The future may be dropped.
    pub(super) async fn accept(&self) -> io::Result<(Socket, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                // Without it small packets wait for acknowledgements of the network.
                let _set_or_not = stream.set_nodelay(true);
                Ok((Socket::Tcp(stream), Peer::Tcp(address)))
            }
            Self::Unix(listener, _) => {
                let (stream, _unnamed) = listener.accept().await?;
                Ok((Socket::Unix(stream), Peer::Unix))
            }
        }
    }

    /// Takes the name of a socket out of the file system: nobody finds it any more.
    pub(super) fn withdraw(&self) {
        if let Self::Unix(_, file) = self {
            file.remove();
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    // A restarted broker gets its port back at once.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

fn bind_unix(path: &Path) -> io::Result<Acceptor> {
    remove_stale(path)?;
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&socket2::SockAddr::unix(path)?)?;
    let file = SocketFile::of(path)?;
    // Nobody can connect before it listens, so nobody slips in under the mode of the umask.
    fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE))?;
    socket.listen(BACKLOG)?;
    Ok(Acceptor::Unix(UnixListener::from_std(socket.into())?, file))
}

/// A broker that was killed leaves its socket behind. Whatever else is in the way stays.
fn remove_stale(path: &Path) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !metadata.file_type().is_socket() {
        let text = "there is something that is no socket";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
    }
    match StdUnixStream::connect(path) {
        Ok(_somebody) => {
            Err(io::Error::new(io::ErrorKind::AddrInUse, "somebody listens there already"))
        }
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
    }
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), device: metadata.dev(), inode: metadata.ino() })
    }

    fn remove(&self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == (self.device, self.inode));
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.remove();
    }
}
