//! No bytes from outside make a decoder of this crate panic.

use proptest::prelude::*;

use crate::{decky_config, hydrated, settings, topology_file};

proptest! {
    #[test]
    fn documents_of_any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        drop(hydrated::decode(&bytes));
        drop(decky_config::DeckyConfig::decode(&bytes));
        drop(serde_json::from_slice::<topology_file::TopologyFile>(&bytes));
    }

    #[test]
    fn texts_of_any_kind_are_answered(text in "\\PC{0,60}") {
        drop(settings::duration(&text));
        drop(settings::hint(&text));
        std::hint::black_box(settings::nearest(&text, ["heartbeat", "data_dir"]));
    }
}

#[cfg(feature = "grpc")]
proptest! {
    #[test]
    fn messages_of_any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        use prost::Message as _;
        if let Ok(report) = crate::v1::Report::decode(bytes.as_slice()) {
            drop(domain::assign::HostReport::try_from(report));
        }
        drop(crate::v1::AgentMessage::decode(bytes.as_slice()));
        drop(crate::v1::MasterMessage::decode(bytes.as_slice()));
        drop(crate::v1::EventBatch::decode(bytes.as_slice()));
        drop(crate::v1::JoinRequest::decode(bytes.as_slice()));
    }
}
