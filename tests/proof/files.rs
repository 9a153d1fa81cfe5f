//! The PEM files of CI certificates: what they may look like, and what is said of broken ones.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use simcast::client::payload::{EuiccCa, sample_eid};
use simcast::config::{Bind, Config};
use simcast::rsp::proof::verify;
use simcast::service::{FileError, Service, StartError, trusted_issuers};

use super::NOW;
use super::forge::Forge;

fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}

fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn all_certificates_of_all_files_are_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let cas = [(); 3].map(|()| EuiccCa::new(NOW).unwrap());
    let bundle = format!(
        "Two of them\r\n\n{}and\n{}\n",
        cas[0].ci_pem().replace('\n', "\r\n"),
        cas[1].ci_pem()
    );
    let paths =
        [write(dir.path(), "bundle.pem", &bundle), write(dir.path(), "ci.pem", cas[2].ci_pem())];
    let issuers = trusted_issuers(&paths).unwrap();
    assert_eq!(issuers.len(), 3);
    for ca in &cas {
        let proof = ca.euicc(sample_eid(1)).unwrap().delete_notification(1, None).unwrap();
        assert!(verify(&proof, sample_eid(1), &issuers, NOW).is_ok());
    }
    let stranger = EuiccCa::new(NOW).unwrap().euicc(sample_eid(1)).unwrap();
    let proof = stranger.delete_notification(1, None).unwrap();
    assert!(verify(&proof, sample_eid(1), &issuers, NOW).is_err());
    assert!(trusted_issuers(&[]).unwrap().is_empty());
}

#[test]
fn each_certificate_that_cannot_be_trusted_is_named_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let made = Forge::new().make();
    let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let cut = "-----BEGIN CERTIFICATE-----\nAAAA\n";
    let brainpool = include_str!("../data/brainpool.pem");
    let text = [pem(&made.ci), pem(&made.eum), key.into(), cut.into(), brainpool.into()].concat();
    let path = write(dir.path(), "ci.pem", &text);
    let error = trusted_issuers(std::slice::from_ref(&path)).unwrap_err();
    let FileError::Broken { lines, .. } = &error else { panic!("{error}") };
    let numbers: Vec<usize> = lines.iter().map(|(line, _)| *line).collect();
    assert_eq!(numbers, [4, 7, 10, 12]);
    let error = error.to_string();
    let said: Vec<&str> = error.lines().collect();
    for (line, what) in said.iter().zip(["not that of a CA", "PRIVATE KEY", "not PEM", "P-256"]) {
        assert!(line.starts_with(&path.display().to_string()) && line.contains(what), "{line}");
    }
    assert!(!error.contains("AAAA"), "what may be a key is not shown");
}

#[test]
fn a_file_without_certificates_is_broken_and_one_that_is_absent_unreadable() {
    let dir = tempfile::tempdir().unwrap();
    for text in ["", "\n", "no certificate\n", "MAP7/78=\n"] {
        let path = write(dir.path(), "ci.pem", text);
        let error = trusted_issuers(&[path]).unwrap_err();
        assert!(error.to_string().ends_with(":1: there is no certificate in it"), "{error}");
    }
    let huge = write(dir.path(), "huge.pem", &"x".repeat((1 << 20) + 1));
    let error = trusted_issuers(&[huge]).unwrap_err();
    assert!(error.to_string().ends_with(":1: more than 1048576 bytes"), "{error}");
    let absent = trusted_issuers(&[dir.path().join("absent.pem")]);
    assert!(matches!(absent, Err(FileError::Unreadable { .. })));
}

#[tokio::test]
async fn a_broker_does_not_start_with_an_issuer_that_it_cannot_trust() {
    let dir = tempfile::tempdir().unwrap();
    let ca = EuiccCa::new(NOW).unwrap();
    let path = write(dir.path(), "ci.pem", ca.ci_pem());
    let start = || async {
        let mut config = Config::default();
        config.listeners[0].bind = Bind::Tcp(([127, 0, 0, 1], 0).into());
        config.admin.bind = None;
        config.rsp.proof_issuers = vec![path.clone()];
        Service::start(config).await
    };
    let service = start().await.unwrap();
    assert_eq!(service.trusted_issuers().len(), 1);
    service.stop().await;
    std::fs::write(&path, pem(&Forge::new().make().euicc)).unwrap();
    let error = start().await.unwrap_err();
    assert!(matches!(error, StartError::File(FileError::Broken { .. })), "{error}");
    assert!(error.to_string().starts_with(&format!("{}:1: ", path.display())), "{error}");
}
