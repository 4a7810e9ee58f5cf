//! What it costs those who send that some followers stop reading, and some vanish without a word.
//!
//! One who stops reads its head and then nothing, with a small buffer, so that the server soon can't write. One who vanishes drops every
//! packet that comes: nothing is acknowledged, and nothing says that it is gone.

use std::sync::Arc;

use socket2::{SockFilter, SockRef};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
};

use crate::{
    client::{Counted, Millis, Plan, follow, on_one_thread, publish},
    median,
    targets::{Server, Target},
};

/// Followers of one server.
struct Side {
    name: &'static str,
    healthy: usize,
    stopped: usize,
    vanished: usize,
}

/// While the buffers fill of those who don't read.
const WARM_UP_SECONDS: usize = 3;

pub(crate) fn compare(plan: &Plan, rounds: usize) {
    let part = plan.followers / 5;
    let side = |name, healthy, troubled| Side {
        name,
        healthy,
        stopped: troubled,
        vanished: troubled,
    };
    let sides = [
        side("all healthy", plan.followers, 0),
        side(
            "1 in 5 stopped, 1 in 5 vanished",
            plan.followers - 2 * part,
            part,
        ),
        side("without those", plan.followers - 2 * part, 0),
    ];
    println!(
        "{} followers, {} events/s for {} s; milliseconds to an answer, medians of {rounds} rounds",
        plan.followers, plan.paced_per_second, plan.paced_seconds
    );
    println!("{:<32} {:>8} {:>8}", "followers", "p50", "p99");
    let mut figures = sides.each_ref().map(|_| Vec::new());
    for _ in 0..rounds {
        for (side, figures) in sides.iter().zip(&mut figures) {
            let server = Server::start(&Target::Hookpool);
            figures.push(on_one_thread(side.measure(&server, plan)));
        }
    }
    for (side, figures) in sides.iter().zip(&figures) {
        let of = |pick: fn(&Millis) -> f64| median(figures.iter().map(pick).collect());
        let (p50, p99) = (of(|millis| millis.p50), of(|millis| millis.p99));
        println!("{:<32} {p50:>8.2} {p99:>8.2}", side.name);
    }
}

impl Side {
    async fn measure(&self, server: &Server, plan: &Plan) -> Millis {
        let counted = Counted::new();
        let mut followers = JoinSet::new();
        for _ in 0..self.healthy {
            let stream = TcpStream::connect(server.address).await.unwrap();
            let request = server.follow.clone();
            followers.spawn(follow(stream, request, Arc::clone(&counted), false));
        }
        let mut silent = Vec::new();
        for n in 0..self.stopped + self.vanished {
            let stream = reads_its_head(server).await;
            if n >= self.stopped {
                drop_all_that_comes(&stream);
            }
            silent.push(stream);
        }
        counted.are_connected(self.healthy).await;
        let paced = Some(plan.paced_per_second);
        publish(
            server,
            &counted,
            plan.paced_per_second * WARM_UP_SECONDS,
            paced,
        )
        .await;
        let events = plan.paced_per_second * plan.paced_seconds;
        Millis::of(publish(server, &counted, events, paced).await)
    }
}

async fn reads_its_head(server: &Server) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    let mut stream = socket.connect(server.address).await.unwrap();
    stream.write_all(server.follow.as_bytes()).await.unwrap();
    let mut head = [0; 1_024];
    let read = stream.read(&mut head).await.unwrap();
    assert!(head[..read].starts_with(b"HTTP/1.1 200"));
    stream
}

fn drop_all_that_comes(stream: &TcpStream) {
    // "Keep nothing of it", as the kernel wants it.
    let nothing = SockFilter::new(0x06, 0, 0, 0);
    SockRef::from(stream).attach_filter(&[nothing]).unwrap();
}
