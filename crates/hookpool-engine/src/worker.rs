//! A thread that does one kind of work, a piece at a time, while the one that gave it does something else.

use std::{
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::Scope,
};

/// Takes a piece of work and gives its result; ends with its last owner.
pub(crate) struct Worker<W, R> {
    work: SyncSender<W>,
    results: Receiver<R>,
}

impl<W: Send, R: Send> Worker<W, R> {
    pub(crate) fn start<'scope, 'env>(
        scope: &'scope Scope<'scope, 'env>,
        mut run: impl FnMut(W) -> R + Send + 'scope,
    ) -> Self
    where
        W: 'scope,
        R: 'scope,
    {
        let (work, received) = sync_channel(1);
        let (answer, results) = sync_channel(1);
        scope.spawn(move || {
            while let Ok(piece) = received.recv() {
                if answer.send(run(piece)).is_err() {
                    return;
                }
            }
        });
        Self { work, results }
    }

    /// Gives a piece of work; the result of the one before must have been taken.
    ///
    /// # Panics
    /// As the work did.
    pub(crate) fn begin(&self, piece: W) {
        let given = self.work.send(piece).is_ok();
        assert!(given, "the worker goes on");
    }

    /// Waits for the result.
    ///
    /// # Panics
    /// As the work did.
    pub(crate) fn finish(&self) -> R {
        self.results.recv().expect("the worker goes on")
    }
}
