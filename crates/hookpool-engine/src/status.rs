//! Whether the engine takes deliveries, and if not, why.

use tokio::sync::watch;

/// What the engine is doing. It only ever moves down this list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// It takes deliveries.
    Ready,
    /// It was asked to stop: no new deliveries, followers are sent away.
    Stopping,
    /// Something final went wrong: nothing is acknowledged any more, and the process should end with an error.
    Failed(String),
}

/// The status, shared by everything that can change or must know it.
#[derive(Debug, Clone)]
pub struct StatusCell(watch::Sender<Status>);

impl Default for StatusCell {
    fn default() -> Self {
        Self(watch::Sender::new(Status::Ready))
    }
}

impl StatusCell {
    /// The status now.
    #[must_use]
    pub fn get(&self) -> Status {
        self.0.borrow().clone()
    }

    /// Whether deliveries are taken.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        *self.0.borrow() == Status::Ready
    }

    /// The status as it moves.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Status> {
        self.0.subscribe()
    }

    /// Asks to stop.
    pub fn stop(&self) {
        self.0.send_if_modified(|status| {
            let ready = *status == Status::Ready;
            if ready {
                *status = Status::Stopping;
            }
            ready
        });
    }

    /// Records the first final failure.
    pub fn fail(&self, reason: String) {
        tracing::error!(reason, "stopping: nothing is acknowledged any more");
        self.0.send_if_modified(|status| {
            let first = !matches!(status, Status::Failed(_));
            if first {
                *status = Status::Failed(reason);
            }
            first
        });
    }

    /// Waits until deliveries are no longer taken, and says why.
    pub async fn ended(&self) -> Status {
        let mut status = self.0.subscribe();
        // The sender lives in self, so the channel is open while we wait.
        status
            .wait_for(|status| *status != Status::Ready)
            .await
            .map_or(Status::Stopping, |status| status.clone())
    }
}

/// Held by a thread or task that the engine can't do without: its panic is a final failure, not a silence.
#[derive(Debug)]
pub(crate) struct FailOnPanic {
    who: &'static str,
    status: StatusCell,
}

impl FailOnPanic {
    pub(crate) fn new(who: &'static str, status: &StatusCell) -> Self {
        Self {
            who,
            status: status.clone(),
        }
    }
}

impl Drop for FailOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.status.fail(format!("{} broke off", self.who));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_a_guarded_thread_is_a_failure_and_its_end_is_not() {
        let status = StatusCell::default();
        let run = |panics: bool| {
            let status = status.clone();
            std::thread::spawn(move || {
                let _failing = FailOnPanic::new("the test", &status);
                assert!(!panics, "a panic for the test");
            })
            .join()
        };
        assert!(run(false).is_ok() && status.is_ready());
        assert!(run(true).is_err());
        assert_eq!(
            status.get(),
            Status::Failed("the test broke off".to_owned())
        );
    }
}
