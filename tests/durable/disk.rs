//! Disks that cannot be written for a time.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use simcast::mqtt::{QoS, ReasonCode};

use super::after_a_crash;
use super::common::process::Broker;
use super::common::program::is_here;
use super::common::{Dial, in_time};

/// A file system of its own in memory, as small as a test wants it; gone with this value.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where this machine does not let us have one.
    fn mount(folder: &Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(folder).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size},mode=700"), "tmpfs"]).arg(folder);
        is_here("a small disk (mount)", "mount, and be root", &mut mount)
            .then(|| Self(folder.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_full_disk_refuses_what_must_be_kept_and_nothing_is_lost_when_there_is_room_again() {
    // cases D18, C6
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("disk");
    let Some(_disk) = SmallDisk::mount(&folder, "3m") else { return };
    let ballast = folder.join("ballast");
    let config = "[store]\npath = \"disk/store\"\n";
    let mut broker = Broker::start_in(dir, config, super::LOG).await;
    std::fs::write(&ballast, vec![0; 1_500_000]).unwrap();
    let mut away = broker.client(Dial::v5("away").persistent()).await;
    away.subscribe("t", QoS::AtLeastOnce).await;
    away.disconnect().await;

    // Until the disk is full: then the broker keeps what it has, and owes the answer.
    let mut writer = broker.client(Dial::v5("writer")).await;
    let enough = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&enough);
    let writing = tokio::spawn(async move {
        let mut taken = 0;
        while !stop.load(Ordering::SeqCst) {
            assert!(writer.publish("t", vec![b'x'; 50_000], QoS::AtLeastOnce).await.is_ok());
            taken += 1;
        }
        taken
    });
    let full = async {
        while !broker.get("/readyz").await.starts_with("HTTP/1.1 503 ") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    in_time("a full disk", full).await;
    enough.store(true, Ordering::SeqCst);
    let mut others = broker.client(Dial::v5("others")).await;
    let answer = others.publish("t", "small", QoS::AtLeastOnce).await;
    assert_eq!(answer.reason, ReasonCode::QuotaExceeded);
    assert_eq!(answer.text.as_deref(), Some("store_full"));
    others.ping().await;
    let ready = broker.get("/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 503 ") && ready.contains("disk is full"), "{ready}");
    assert!(broker.get("/livez").await.starts_with("HTTP/1.1 200 "));
    let metrics = broker.get("/metrics").await;
    let errors =
        metrics.lines().find(|l| l.starts_with("simcast_store_errors_total{kind=\"full\"}"));
    assert!(errors.is_some_and(|line| !line.ends_with(" 0")), "{errors:?}");

    std::fs::remove_file(&ballast).unwrap();
    let recovered = async {
        while !broker.get("/readyz").await.starts_with("HTTP/1.1 200 ") {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    in_time("the disk to be written again", recovered).await;
    assert!(others.publish("t", "last", QoS::AtLeastOnce).await.is_ok());
    let taken = in_time("the answer that was owed", writing).await.unwrap();
    broker = after_a_crash(broker).await;
    let mut away = broker.client(Dial::v5("away").persistent()).await;
    let mut found = Vec::new();
    loop {
        found.push(away.expect_payload().await);
        if found.last().is_some_and(|payload| payload == "last") {
            break;
        }
    }
    assert!(taken > 10, "{taken}");
    assert_eq!(found.iter().filter(|payload| payload.len() == 50_000).count(), taken);
}
