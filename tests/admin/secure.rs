//! The API over TLS, with and without certificates of operators (case S16).

use std::net::{Ipv4Addr, SocketAddr};

use simcast::config::{AdminTls, Config, TlsVersion};
use simcast::pki::{Issued, LeafTemplate};
use simcast::rsp::ServerRule;
use tokio::io::AsyncWriteExt;

use crate::common::{Rig, in_time, nid};
use crate::ctl::ctl;
use crate::http::{READ_TOKEN, Request, TOKEN, exchange, secret};

/// Reachable from everywhere, with the certificate of the MQTT listener.
fn open(config: &mut Config, change: impl FnOnce(&mut AdminTls)) {
    let listener = config.listeners[1].tls.as_ref().unwrap();
    let mut tls = AdminTls {
        cert: listener.cert.clone(),
        key: listener.key.clone(),
        client_ca: None,
        crl: None,
        operators: Vec::new(),
        min_version: TlsVersion::default(),
    };
    change(&mut tls);
    config.admin.bind = Some(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
    config.admin.tls = Some(tls);
}

/// The same with certificates: the CA is that of the devices, too, so operators are named.
async fn rig_with_operators(change: impl FnOnce(&mut Config)) -> Rig {
    Rig::with(|config| {
        let of_devices = config.listeners[1].tls.clone().unwrap();
        open(config, |tls| {
            tls.client_ca = of_devices.client_ca;
            tls.crl = of_devices.crl;
            tls.operators = vec![ServerRule::OrganizationalUnit("operators".to_owned())];
        });
        change(config);
    })
    .await
}

fn operator(rig: &Rig) -> Issued {
    let template = LeafTemplate::server("ops.example").unwrap();
    let organizational_unit = Some("operators".to_owned());
    rig.authority.issue(&LeafTemplate { organizational_unit, ..template }).unwrap()
}

/// The status of the answer; nothing where there is none.
async fn status(rig: &Rig, issued: Option<&Issued>, request: &Request) -> Option<u16> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, rig.admin.port()));
    let stream = rig.handshake_at(address, issued).await.ok()?;
    let answer = exchange(stream, &request.bytes()).await;
    let text = String::from_utf8(answer).unwrap();
    text.split(' ').nth(1).map(|status| status.parse().unwrap())
}

#[tokio::test]
async fn with_a_token_the_api_is_there_for_all_over_tls_alone() {
    let rig = Rig::with(|config| {
        config.admin.read_token_file = Some(secret(config, "read-token", READ_TOKEN));
        open(config, |_tls| {});
    })
    .await;
    let groups = Request::get("/api/v1/groups").instead("Host", "broker.example");
    assert_eq!(status(&rig, None, &groups).await, Some(401));
    assert_eq!(status(&rig, None, &groups.clone().token(READ_TOKEN)).await, Some(200));
    assert_eq!(status(&rig, None, &Request::get("/livez")).await, Some(200));
    // With a token for reading alone, nobody changes anything.
    let delete = Request::new("DELETE", &format!("/api/v1/devices/{}", nid(1)));
    for token in [READ_TOKEN, TOKEN] {
        assert!(matches!(status(&rig, None, &delete.clone().token(token)).await, Some(401 | 403)));
    }
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, rig.admin.port()));
    let plain = exchange(rig.tcp(address).await, &groups.bytes()).await;
    assert!(!plain.starts_with(b"HTTP"), "{plain:?}");
}

#[tokio::test]
async fn a_certificate_opens_the_api_if_it_is_that_of_an_operator() {
    let rig = rig_with_operators(|_config| {}).await;
    let (ops, device) = (operator(&rig), rig.authority.issue_device(nid(1)).unwrap());
    let delete = Request::new("DELETE", &format!("/api/v1/devices/{}", nid(4)));
    // From any name, for browsers check the certificate of the broker; but not for pages.
    let delete = delete.instead("Host", "broker.example");
    assert_eq!(status(&rig, Some(&device), &delete).await, Some(403));
    assert_eq!(status(&rig, Some(&device), &Request::get("/api/v1/groups")).await, Some(403));
    assert_eq!(status(&rig, Some(&device), &Request::get("/livez")).await, Some(200));
    let page = delete.clone().header("Origin", "https://evil.example");
    assert_eq!(status(&rig, Some(&ops), &page).await, Some(403));
    assert_eq!(status(&rig, Some(&ops), &delete).await, Some(204));
    let audit = rig.service.broker().audit();
    assert!(audit.flush(std::time::Duration::from_secs(20)));
    let lines = audit.since(0, 10).lines;
    let [line] = &lines[..] else { panic!("{lines:?}") };
    assert!(line.contains("\"actor\":\"CN=ops.example,OU=operators,O=simcast\""), "{line}");

    // Without a certificate, or with one of somebody else, there is nothing at all.
    assert_eq!(status(&rig, None, &Request::get("/livez")).await, None);
    let foreign = simcast::pki::Authority::in_memory().unwrap().issue_server("ops.example");
    assert_eq!(status(&rig, Some(&foreign.unwrap()), &Request::get("/livez")).await, None);
}

#[tokio::test]
async fn where_there_are_tokens_too_an_operator_needs_both() {
    let rig = rig_with_operators(|config| {
        config.admin.token_file = Some(secret(config, "token", TOKEN));
    })
    .await;
    let (ops, device) = (operator(&rig), rig.authority.issue_device(nid(1)).unwrap());
    let groups = Request::get("/api/v1/groups");
    let with_token = groups.clone().token(TOKEN);
    assert_eq!(status(&rig, Some(&ops), &groups).await, Some(401));
    assert_eq!(status(&rig, Some(&device), &with_token).await, Some(403));
    assert_eq!(status(&rig, Some(&ops), &with_token).await, Some(200));
}

#[tokio::test]
async fn a_revoked_operator_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let mut authority = simcast::pki::Authority::create(dir.path()).unwrap();
    let ops = authority.issue_server("ops.example").unwrap();
    let other = authority.issue_server("other.example").unwrap();
    authority.revoke(&ops.cert_pem).unwrap();
    let rig = Rig::with_authority(dir, authority, |config| {
        let of_devices = config.listeners[1].tls.clone().unwrap();
        open(config, |tls| {
            tls.client_ca = of_devices.client_ca;
            tls.crl = of_devices.crl;
            tls.operators = vec![ServerRule::OrganizationalUnit("SM-SR".to_owned())];
        });
    })
    .await;
    let groups = Request::get("/api/v1/groups");
    assert_eq!(status(&rig, Some(&ops), &groups).await, None);
    assert_eq!(status(&rig, Some(&other), &groups).await, Some(200));
}

#[tokio::test]
async fn whoever_does_not_finish_a_handshake_holds_up_nobody() {
    let rig = rig_with_operators(|_config| {}).await;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, rig.admin.port()));
    let mut silent = Vec::new();
    for _ in 0..20 {
        let mut socket = rig.tcp(address).await;
        in_time("a write", socket.write_all(&[0x16, 3, 1])).await.unwrap();
        silent.push(socket);
    }
    assert_eq!(status(&rig, Some(&operator(&rig)), &Request::get("/livez")).await, Some(200));
}

#[tokio::test]
async fn ctl_says_what_is_missing_towards_a_secured_address() {
    let rig = rig_with_operators(|_config| {}).await;
    let file = |name: &str, text: &str| std::fs::write(rig.dir.path().join(name), text).unwrap();
    let ops = operator(&rig);
    file("trusted.pem", rig.authority.ca_pem());
    file("ops.pem", &ops.cert_pem);
    file("ops.key", &ops.key_pem);
    let list = async |scheme: &str, more: &[&str]| {
        let url = format!("{scheme}://localhost:{}", rig.admin.port());
        ctl(&rig, &[&["--url", &url, "groups", "list"], more].concat()).await
    };
    let trusting = ["--ca", "trusted.pem"];
    let complaint = list("http", &trusting).await.failed(1);
    assert!(complaint.contains("say https:// in --url"), "{complaint}");
    let complaint = list("https", &trusting).await.failed(1);
    assert!(complaint.contains("say --cert and --key"), "{complaint}");
    let complaint = list("https", &[]).await.failed(1);
    assert!(complaint.contains("https needs --ca"), "{complaint}");
    let own = ["--cert", "ops.pem", "--key", "ops.key"];
    let table = list("https", &[&trusting[..], &own].concat()).await.ok();
    assert!(table.starts_with("GID"), "{table}");
}
