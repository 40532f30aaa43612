use std::fs;

use domain::id::{DeckyId, HostId, LanId};

use super::super::tests::{RealKernel, Stage, nothing_is_left_of};
use super::*;
use crate::engine::liveness::LivenessBoard;
use crate::engine::{Engine as _, sample};

#[tokio::test]
async fn records_that_a_loss_of_power_has_emptied_go_with_all_that_is_left_of_their_objects() {
    let world = RealKernel::new(23);
    let host = HostId::new(sample::unique());
    let engine = world.native_engine(host, LivenessBoard::new());
    let shared = &engine.shared;
    shared.places.prepare().expect("the directory is writable");
    let lan = name::lan(host, 0, LanId::new(sample::unique()), 1);
    let decky = name::decky(host, DeckyId::new(sample::unique()), 1);
    let others = "not-of-this-host";
    let record = |records: &super::super::Records, handle: &str| {
        records.directory().join(format!("{handle}.json"))
    };
    for file in [
        record(&shared.lans, &lan),
        record(&shared.deckies, &decky),
        record(&shared.deckies, others),
        shared.outputs.file(&decky),
    ] {
        fs::write(file, b"").expect("the directory is writable");
    }
    let inventory = engine.inventory().await.expect("the kernel answers");
    let foreign: Vec<_> = inventory
        .foreign
        .iter()
        .map(|it| it.name.as_str())
        .collect();
    assert_eq!(foreign, [others]);
    assert!(!record(&shared.lans, &lan).exists());
    assert!(!record(&shared.deckies, &decky).exists());
    assert!(!shared.outputs.exists(&decky));
    shared.deckies.remove(others).expect("the disk is there");
    shared.clear_if_empty().expect("the kernel answers");
    nothing_is_left_of(&engine);
}

#[tokio::test]
async fn a_decky_that_runs_is_reported_and_left_alone_whatever_its_record_is() {
    let stage = Stage::set_behind(24, Some(std::net::Ipv4Addr::LOCALHOST)).await;
    let shared = &stage.engine.shared;
    let (decky, lan) = (stage.handle.as_str(), stage.lans[0].as_str());
    let records = [
        shared.deckies.directory().join(format!("{decky}.json")),
        shared.lans.directory().join(format!("{lan}.json")),
    ];
    let pid = shared.pid_of(decky);
    let mut whole = Vec::new();
    for record in &records {
        whole.push(fs::read(record).expect("it was made"));
        fs::write(record, b"").expect("the directory is writable");
    }
    let inventory = stage.engine.inventory().await.expect("the kernel answers");
    let mut foreign: Vec<_> = inventory
        .foreign
        .iter()
        .map(|it| it.name.as_str())
        .collect();
    foreign.dedup();
    assert_eq!(foreign, [decky, lan]);
    assert_eq!(shared.pid_of(decky), pid);
    for (record, bytes) in records.iter().zip(whole) {
        fs::write(record, bytes).expect("the directory is writable");
    }
    stage.clear().await;
}
