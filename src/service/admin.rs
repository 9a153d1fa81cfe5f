//! The HTTP side: its socket, its TLS, and the tokens that open it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::StartError;
use crate::admin::{self, Access, AdminState, Channel, Opened, Readiness, Secure, Tokens};
use crate::broker::Broker;
use crate::config::{Admin, Token, TokenError};
use crate::net::HttpTls;

/// A file without a token that may be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}", path.display())]
pub struct TokenFileError {
    /// Which file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub error: TokenError,
}

/// Who may use the HTTP side.
pub(super) fn access(config: &Admin) -> Result<Arc<Access>, TokenFileError> {
    let by_certificate = config.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    Ok(Arc::new(Access::new(tokens(config)?, by_certificate)))
}

/// The tokens that stand in the files now.
pub(super) fn tokens(config: &Admin) -> Result<Tokens, TokenFileError> {
    let read = |path: &Option<PathBuf>| {
        let Some(path) = path else { return Ok(None) };
        let token = Token::read(path);
        token.map(Some).map_err(|error| TokenFileError { path: path.clone(), error })
    };
    let (write, read) = (read(&config.token_file)?, read(&config.read_token_file)?);
    Ok(Tokens::new(write.as_ref(), read.as_ref()))
}

/// Serves it on this address; gives the one that it really has.
pub(super) async fn start(
    bind: SocketAddr,
    config: &Admin,
    broker: &Arc<Broker>,
    readiness: &Arc<Readiness>,
    access: &Arc<Access>,
) -> Result<(SocketAddr, JoinHandle<()>), StartError> {
    let secure = match &config.tls {
        Some(tls) => Some(secure(HttpTls::load(tls).map_err(StartError::AdminTls)?)),
        None => None,
    };
    let failed = |error| StartError::Admin(bind, error);
    let socket = TcpListener::bind(bind).await.map_err(failed)?;
    let address = socket.local_addr().map_err(failed)?;
    let (broker, readiness) = (Arc::clone(broker), Arc::clone(readiness));
    let state = Arc::new(AdminState::new(broker, readiness, Arc::clone(access)));
    let task = tokio::spawn(async move { match admin::serve(socket, state, secure).await {} });
    Ok((address, task))
}

/// What `net` knows of TLS, for `admin`.
fn secure(tls: HttpTls) -> Secure {
    let tls = Arc::new(tls);
    Arc::new(move |socket: TcpStream| {
        let securing = Arc::clone(&tls).secure(socket);
        Box::pin(async move {
            let secured = securing.await.map_err(|error| error.to_string())?;
            let channel: Box<dyn Channel> = Box::new(secured.stream);
            Ok(Opened { channel, operator: secured.operator })
        })
    })
}
