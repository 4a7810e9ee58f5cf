//! Which of our threads goes first where there are more of them than cores.

/// A thread that gives way gets about 0.4 of what another one does while both want a core. With 10, a tenth, followers wait longer and senders
/// no shorter (`docs/benchmarks.md`).
#[cfg(target_os = "linux")]
const NICE: i32 = 4;

/// Has this thread, and those that it starts, give way to all others. What waits for nobody's answer and takes more at once when it comes later should.
pub(crate) fn give_way() {
    // Elsewhere niceness is that of the whole process.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE) {
        tracing::debug!(%error, "a thread goes on with the priority of all others");
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn only_the_thread_that_asks_gives_way() {
        let nice = || rustix::process::getpriority_process(Some(rustix::thread::gettid())).unwrap();
        let before = nice();
        let gives_way = std::thread::spawn(move || {
            give_way();
            nice()
        });
        assert_eq!(gives_way.join().unwrap(), NICE.max(before));
        assert_eq!(nice(), before);
    }
}
