//! `hookpool tail`: follows a stream until somebody has seen enough.

use hookpool_client::{Change, Follower, Frame, Interruption, Op, Row};

use super::items::one_line;
use crate::{
    cli::{Globals, TailArgs, TailOutput},
    exit::Exit,
    output,
};

pub(crate) async fn run(args: TailArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let mut follower = follower(&args, globals)?;
    let mut enough = Box::pin(enough());
    loop {
        let frame = tokio::select! {
            frame = follower.next() => frame,
            () = &mut enough => return Ok(Exit::Ok),
        };
        match frame {
            Some(frame) => print(&frame?, args.output)?,
            None => return Ok(Exit::Ok),
        }
    }
}

fn follower(args: &TailArgs, globals: &Globals) -> anyhow::Result<Follower> {
    let follower = globals
        .consumer()?
        .follow(&args.stream)
        .start(args.from.clone())
        .on_interruption(|Interruption { error, retry_in }| {
            let line = format!(
                "{error}; connecting again in {:.1} s",
                retry_in.as_secs_f64()
            );
            output::say(&output::printable(&line));
        });
    Ok(match &args.item {
        Some(item) => follower.item(item),
        None => follower,
    })
}

fn print(frame: &Frame, output: TailOutput) -> anyhow::Result<()> {
    if output == TailOutput::Ndjson {
        return output::json(frame);
    }
    match frame {
        Frame::Item(Row {
            item_id,
            fields,
            position,
            ..
        }) => {
            line(&format!(
                "{position:>8}  item    {item_id}  {}",
                one_line(fields)
            ))?;
        }
        Frame::Change(Change {
            op,
            item_id,
            set,
            unset,
            position,
            time,
            ..
        }) => {
            let op = match op {
                Op::Upsert => "upsert",
                Op::Delete => "delete",
            };
            let gone: String = unset.iter().map(|name| format!(" -{name}")).collect();
            line(&format!(
                "{position:>8}  {op}  {item_id}  {}{gone}  {time}",
                one_line(set)
            ))?;
        }
        Frame::Generation(now) => {
            output::say(&format!(
                "generation {} is served now; what it differs by follows",
                now.generation
            ));
        }
        Frame::SnapshotEnd(end) => {
            let items = output::count(end.items, "item");
            output::say(&format!(
                "{items} at position {}; changes follow",
                end.position
            ));
        }
        Frame::Reset(reset) => {
            output::say(&output::printable(&format!(
                "starting over with a snapshot: {}",
                reset.reason
            )));
        }
        Frame::Goodbye(goodbye) => {
            output::say(&output::printable(&format!(
                "the server says goodbye: {}",
                goodbye.reason
            )));
        }
        // A bookmark moves only the cursor.
        _ => {}
    }
    Ok(())
}

fn line(text: &str) -> anyhow::Result<()> {
    output::line(&output::printable(text))
}

/// Waits for Ctrl-C or for whoever reads our output to go away.
async fn enough() {
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => {
            if interrupted.is_err() {
                std::future::pending().await
            }
        }
        () = stdout_closed() => {}
    }
}

/// Learns at once that a pipe has no reader any more; without this a quiet stream would never find out.
#[cfg(unix)]
async fn stdout_closed() {
    use rustix::{
        event::{PollFd, PollFlags, poll},
        io::Errno,
    };

    let (closed, wait) = tokio::sync::oneshot::channel::<()>();
    // A thread of its own: it blocks for as long as the process lives, and must not keep the runtime from ending.
    std::thread::spawn(move || {
        let stdout = std::io::stdout();
        // Asks for nothing; errors and hang-ups are always told. A file has neither.
        while poll(&mut [PollFd::new(&stdout, PollFlags::empty())], None) == Err(Errno::INTR) {}
        drop(closed);
    });
    let _ = wait.await;
}

#[cfg(not(unix))]
async fn stdout_closed() {
    std::future::pending().await
}
