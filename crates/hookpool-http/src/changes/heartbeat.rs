//! When a connection has been quiet for so long that it has to say that it is there.

use std::{pin::Pin, time::Duration};

use tokio::time::{Instant, Sleep, sleep_until};

/// Rings after each silence. A timer that is set anew for each wave of frames would cost more than the frames.
#[derive(Debug)]
pub(super) struct Heartbeat {
    every: Duration,
    heard: Instant,
    alarm: Pin<Box<Sleep>>,
}

impl Heartbeat {
    pub(super) fn new(every: Duration) -> Self {
        let heard = Instant::now();
        Self {
            every,
            heard,
            alarm: Box::pin(sleep_until(heard + every)),
        }
    }

    /// Something was said just now.
    pub(super) fn restart(&mut self) {
        self.heard = Instant::now();
    }

    /// Waits for the end of a silence. Dropping the future loses nothing.
    pub(super) async fn due(&mut self) {
        loop {
            self.alarm.as_mut().await;
            let due = self.heard + self.every;
            if Instant::now() >= due {
                return;
            }
            self.alarm.as_mut().reset(due);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_rings_after_each_silence_and_not_before() {
        let mut heartbeat = Heartbeat::new(Duration::from_secs(10));
        let begun = Instant::now();
        tokio::time::sleep(Duration::from_secs(7)).await;
        heartbeat.restart();
        heartbeat.due().await;
        assert_eq!(begun.elapsed().as_secs(), 17);
        heartbeat.restart();
        heartbeat.due().await;
        assert_eq!(begun.elapsed().as_secs(), 27);
    }
}
