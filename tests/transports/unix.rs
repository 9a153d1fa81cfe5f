//! Sockets in the file system.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use simcast::config::{Bind, Config, Listener, Protocol, ProxyProtocol};
use simcast::service::Service;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use crate::common::{Client, Denied, Dial, Rig};
use crate::{ONE, in_time, ws};

async fn rig(path: &Path, change: impl FnOnce(&mut Listener)) -> Rig {
    Rig::with_listener(|listener| {
        listener.bind = Bind::Unix(path.to_owned());
        change(listener);
    })
    .await
}

async fn connect(path: &Path) -> UnixStream {
    in_time("a connection", UnixStream::connect(path)).await.unwrap()
}

fn place() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("simcast.sock");
    (dir, path)
}

/// Why a broker does not start on this path.
async fn failure(path: &Path) -> String {
    let any = ([127, 0, 0, 1], 0).into();
    let listener = Listener { bind: Bind::Unix(path.to_owned()), ..Listener::anonymous(any) };
    let mut config = Config { listeners: vec![listener], ..Config::default() };
    config.admin.bind = None;
    Service::start(config).await.expect_err("no broker").to_string()
}

#[tokio::test]
async fn a_client_by_a_path_is_like_any_other() {
    let (_dir, path) = place();
    let rig = rig(&path, |_listener| {}).await;
    assert_eq!(rig.service.addresses()[2], Bind::Unix(path.clone()));
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let mut local = Client::open(connect(&path).await, &Dial::v5("local")).await.unwrap();
    let mut far = rig.client(Dial::v311("far")).await;
    local.subscribe("a", ONE).await;
    far.publish("a", "x".repeat(100_000), ONE).await;
    assert_eq!(local.expect_payload().await.len(), 100_000);
    far.subscribe("b", ONE).await;
    local.publish("b", "back", ONE).await;
    assert_eq!(far.expect_payload().await, "back");
    local.disconnect().await;
}

#[tokio::test]
async fn websocket_and_a_proxy_work_over_a_path_too() {
    let (_dir, path) = place();
    let rig = rig(&path, |listener| {
        listener.protocol = Protocol::Websocket;
        listener.proxy_protocol = ProxyProtocol::V1;
    })
    .await;
    let mut socket = connect(&path).await;
    socket.write_all(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n").await.unwrap();
    let mut page = ws::open(socket, &Dial::v5("page")).await.unwrap();
    page.ping().await;
    drop(rig);
}

#[tokio::test]
async fn nobody_is_let_in_without_proof_over_a_path_either() {
    let (_dir, path) = place();
    let rig = rig(&path, |listener| {
        listener.allow_anonymous = false;
        listener.insecure_identity_from_client_id = true;
    })
    .await;
    let refused = Client::open(connect(&path).await, &Dial::v5("anybody")).await;
    let reason = simcast::mqtt::ReasonCode::NotAuthorized;
    assert_eq!(refused.err(), Some(Denied::ConnAck(reason)));
    drop(rig);
}

#[tokio::test]
async fn a_socket_left_behind_is_replaced_and_nothing_else_is() {
    let (dir, path) = place();
    // Somebody who was killed.
    drop(UnixListener::bind(&path).unwrap());
    assert!(std::fs::symlink_metadata(&path).unwrap().file_type().is_socket());
    let first = rig(&path, |_listener| {}).await;
    let mut client = Client::open(connect(&path).await, &Dial::v5("c")).await.unwrap();
    // Somebody who listens.
    let error = failure(&path).await;
    assert!(error.contains("somebody listens there already"), "{error}");
    client.ping().await;
    // Something else.
    let file = dir.path().join("precious");
    std::fs::write(&file, "data").unwrap();
    let error = failure(&file).await;
    assert!(error.contains("no socket"), "{error}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "data");
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    assert!(failure(&link).await.contains("no socket"));
    assert!(link.is_symlink() && file.exists());
    drop(first);
}

#[tokio::test]
async fn the_path_goes_with_the_broker_unless_a_successor_has_taken_it() {
    let (_dir, path) = place();
    let first = rig(&path, |_listener| {}).await;
    let client = Client::open(connect(&path).await, &Dial::v5("c")).await.unwrap();
    let stopping = tokio::spawn(first.service.stop());
    client.vanish().await;
    assert!(in_time("the stop", stopping).await.unwrap());
    assert!(!path.exists());
    let second = rig(&path, |_listener| {}).await;
    std::fs::remove_file(&path).unwrap();
    let successor = UnixListener::bind(&path).unwrap();
    second.service.stop().await;
    assert!(path.exists(), "it is the successor's");
    drop(successor);
}
