use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::engine::conformance::{Tamper, World, conforms};

struct FakeWorld {
    daemon: FakeDaemon,
    engines: Mutex<Vec<FakeEngine>>,
    next: AtomicU32,
}

impl FakeWorld {
    /// The engine whose host owns the container: it is its board that is cleared.
    fn owner(&self, container: &Handle) -> FakeEngine {
        let host = self.daemon.with(|state| {
            state
                .containers
                .get(container)
                .and_then(|it| it.owner.as_ref())
                .map(|owner| owner.host)
        });
        let engines = self.engines.lock().expect("no test panics here");
        let owner = engines.iter().find(|engine| Some(engine.host) == host);
        owner.unwrap_or(&engines[0]).clone()
    }
}

#[async_trait]
impl World for FakeWorld {
    fn engine(&self, host: HostId) -> (Arc<dyn Engine>, LivenessBoard) {
        let board = LivenessBoard::new();
        let engine = self.daemon.engine(host, board.clone());
        self.engines
            .lock()
            .expect("no test panics here")
            .push(engine.clone());
        (Arc::new(engine), board)
    }

    fn subnet(&self) -> Ipv4Net {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Ipv4Net::new(Ipv4Addr::from_bits(0x0a00_0000 + number * 256), 24).expect("24 is a length")
    }

    fn port(&self) -> u16 {
        8080
    }

    async fn kill(&self, container: &Handle) {
        self.daemon.kill(&self.owner(container), container);
    }

    async fn remove(&self, container: &Handle) {
        self.daemon.remove(&self.owner(container), container);
    }

    async fn cut(&self, container: &Handle, network: &Handle) {
        self.daemon.cut(container, network);
    }

    async fn foreign_container(&self, name: &str) -> Handle {
        self.daemon.foreign_container(name)
    }

    async fn foreign_network(&self, name: &str, subnet: Ipv4Net) -> Handle {
        self.daemon.foreign_network(name, subnet)
    }

    async fn exists(&self, object: &Handle) -> bool {
        self.daemon.with(|state| {
            state.networks.contains_key(object) || state.containers.contains_key(object)
        })
    }

    async fn tamper(&self, container: &Handle, what: Tamper) {
        self.daemon.tamper(container, |wiring| match what {
            Tamper::Rules | Tamper::Hole => wiring.rules = None,
            Tamper::Mac => wiring.interfaces[0].0 = Mac::new([2; 6]),
            Tamper::Address => wiring.interfaces[0].1.clear(),
            Tamper::Route => drop(wiring.routes.pop_first()),
            Tamper::Sysctl => drop(wiring.sysctls.pop_first()),
        });
    }

    async fn speak(&self, container: &Handle) {
        self.daemon.write(container, b"{}");
    }
}

#[tokio::test]
async fn the_fake_conforms() {
    let world = FakeWorld {
        daemon: FakeDaemon::new(),
        engines: Mutex::default(),
        next: AtomicU32::new(0),
    };
    conforms(&world).await;
}
