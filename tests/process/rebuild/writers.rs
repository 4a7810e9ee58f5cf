//! Writers that go on until they are told to stop, also when their server goes and comes back elsewhere.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::common::http::Connection;
use crate::common::server::{Connector, Server};

pub(super) struct Writers {
    addr: Arc<Mutex<SocketAddr>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Written>>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) accepted: u64,
    /// Requests without an answer.
    pub(super) cut: u64,
}

const WRITERS: usize = 4;

impl Writers {
    /// Each posts one body after the other, with a pause between them.
    pub(super) fn start(
        server: &Server,
        connector: &Connector,
        bodies: &[String],
        pause: Duration,
    ) -> Self {
        let addr = Arc::new(Mutex::new(server.addr));
        let stop = Arc::new(AtomicBool::new(false));
        let writer = |n: usize| {
            let (addr, stop, connector) = (Arc::clone(&addr), Arc::clone(&stop), connector.clone());
            let bodies: Vec<String> = bodies.iter().skip(n).step_by(WRITERS).cloned().collect();
            std::thread::spawn(move || write(&addr, &stop, &connector, &bodies, pause))
        };
        Self {
            threads: (0..WRITERS).map(writer).collect(),
            addr,
            stop,
        }
    }

    pub(super) fn meet(&self, addr: SocketAddr) {
        *self.addr.lock().unwrap() = addr;
    }

    pub(super) fn finish(self) -> Written {
        self.stop.store(true, Ordering::Relaxed);
        let add = |sum: Written, thread: JoinHandle<Written>| {
            let Written { accepted, cut } = thread.join().unwrap();
            Written {
                accepted: sum.accepted + accepted,
                cut: sum.cut + cut,
            }
        };
        self.threads.into_iter().fold(Written::default(), add)
    }
}

fn write(
    addr: &Mutex<SocketAddr>,
    stop: &AtomicBool,
    connector: &Connector,
    bodies: &[String],
    pause: Duration,
) -> Written {
    let (mut written, mut connection) = (Written::default(), None);
    for body in bodies.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let addr = *addr.lock().unwrap();
        let open = || Connection::open(addr).ok();
        let request = connector.delivery(body.as_bytes());
        let call = |open: &mut Connection| open.call(&request).ok();
        match connection
            .take()
            .or_else(open)
            .as_mut()
            .map(|it| (call(it), it))
        {
            Some((Some(answer), _)) => {
                answer.expect(202);
                written.accepted += 1;
            }
            Some((None, _)) | None => written.cut += 1,
        }
        std::thread::sleep(pause);
    }
    written
}
