//! `hookpool tail`: follows streams until somebody has seen enough.

use hookpool_client::{Change, Error, Follower, Frame, Interruption, Op, Row, Start};

use super::items::one_line;
use crate::{
    cli::{Globals, TailArgs, TailOutput},
    exit::Exit,
    output::{self, Paint},
};

pub(crate) async fn run(args: TailArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let mut follower = follower(&args, globals)?;
    let printer = Printer {
        output: args.output,
        paint: Paint::of_stdout(),
        several: args.streams.len() > 1,
    };
    let mut enough = Box::pin(enough());
    loop {
        let frame = tokio::select! {
            frame = follower.next() => frame,
            () = &mut enough => return Ok(Exit::Ok),
        };
        match frame {
            Some(frame) => printer.print(&frame?)?,
            None => return Ok(Exit::Ok),
        }
    }
}

fn follower(args: &TailArgs, globals: &Globals) -> anyhow::Result<Follower> {
    let consumer = globals.consumer()?;
    let follower = match args.streams.as_slice() {
        [stream] => consumer.follow(stream),
        streams => consumer.follow_several(streams),
    };
    let start = args.since.as_ref().unwrap_or(&args.from);
    if let ([stream], Start::Cursor(id)) = (args.streams.as_slice(), start)
        && id.contains(':')
    {
        // The server would take it for no cursor, and start over.
        let wrong = format!(
            "--from {id} is an id of several streams: name them all, or give what stands behind {stream}: alone"
        );
        return Err(Error::Invalid(wrong).into());
    }
    let mut follower = follower
        .start(start.clone())
        .fields(&args.selection.fields)
        .on_interruption(|Interruption { error, retry_in }| {
            let line = format!(
                "{error}; connecting again in {:.1} s",
                retry_in.as_secs_f64()
            );
            output::say(&output::printable_line(&line));
        });
    for condition in &args.selection.conditions {
        follower = follower.condition(condition);
    }
    if let Some(item) = &args.item {
        follower = follower.item(item);
    }
    if let Some(interval) = args.conflate {
        follower = follower.conflate(interval);
    }
    if let Some(position) = args.until {
        follower = follower.until(position);
    }
    Ok(follower)
}

/// How frames are printed.
struct Printer {
    output: TailOutput,
    paint: Paint,
    /// Whether lines say of which stream they are.
    several: bool,
}

impl Printer {
    fn print(&self, frame: &Frame) -> anyhow::Result<()> {
        if self.output == TailOutput::Ndjson {
            return output::json(frame);
        }
        match frame {
            Frame::Item(row) => self.row(row)?,
            Frame::Change(change) => self.change(change)?,
            Frame::Generation(now) => {
                let number = now.generation;
                self.say(
                    frame,
                    &format!("generation {number} is served now; what it differs by follows"),
                );
            }
            Frame::SnapshotEnd(end) => {
                let items = output::count(end.items, "item");
                self.say(
                    frame,
                    &format!("{items} at position {}; changes follow", end.position),
                );
            }
            Frame::Reset(reset) => self.say(
                frame,
                &format!("starting over with a snapshot: {}", reset.reason),
            ),
            Frame::Goodbye(goodbye) => self.say(
                frame,
                &format!("the server says goodbye: {}", goodbye.reason),
            ),
            // A bookmark moves only the cursor.
            _ => {}
        }
        Ok(())
    }

    fn row(&self, row: &Row) -> anyhow::Result<()> {
        let what = self.paint.cyan("item  ");
        self.line(
            row.position,
            &what,
            &row.stream,
            &row.item_id,
            &one_line(&row.fields),
            "",
        )
    }

    fn change(&self, change: &Change) -> anyhow::Result<()> {
        let what = match change.op {
            Op::Upsert => self.paint.green("upsert"),
            Op::Delete => self.paint.red("delete"),
        };
        let gone: String = change
            .unset
            .iter()
            .map(|name| format!(" -{name}"))
            .collect();
        let fields = match change.op {
            Op::Upsert => format!("{}{gone}", one_line(&change.set)),
            Op::Delete => "gone".to_owned(),
        };
        let merged = match change.merged {
            Some(events) => format!("  {}", output::count(events, "event")),
            None => String::new(),
        };
        let end = format!("{merged}  {}", change.time);
        self.line(
            change.position,
            &what,
            &change.stream,
            &change.item_id,
            &fields,
            &end,
        )
    }

    /// What comes from outside is made printable before it is painted.
    fn line(
        &self,
        position: u64,
        what: &str,
        stream: &str,
        item_id: &str,
        fields: &str,
        end: &str,
    ) -> anyhow::Result<()> {
        let stream = match self.several {
            true => format!("{}  ", output::printable_line(stream)),
            false => String::new(),
        };
        let position = self.paint.dim(&format!("{position:>8}"));
        let item_id = self.paint.bold(&output::printable_line(item_id));
        let fields = output::printable_line(fields);
        let end = self.paint.dim(&output::printable_line(end));
        output::line(&format!(
            "{position}  {what}  {stream}{item_id}  {fields}{end}"
        ))
    }

    fn say(&self, frame: &Frame, text: &str) {
        let stream = frame.stream().filter(|_| self.several);
        let stream = stream
            .map(|stream| format!("{stream}: "))
            .unwrap_or_default();
        output::say(&output::printable_line(&format!("{stream}{text}")));
    }
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
