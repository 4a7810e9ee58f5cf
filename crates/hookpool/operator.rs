//! `hookpool operator`: the second way in, for who may write to the data folder.

use anyhow::{Context, ensure};

use crate::{config::Settings, exit::Exit, keys, node::Node, output};

/// Makes another operator key on a folder that nobody serves.
pub(crate) async fn add(settings: Settings) -> anyhow::Result<Exit> {
    let dir = &settings.data_dir;
    ensure!(
        dir.join("control").exists(),
        "{} is no data folder; --data-dir names one, and `hookpool serve` makes one with its operator key",
        dir.display()
    );
    let file = keys::operator_key_file(dir);
    let there = file
        .try_exists()
        .with_context(|| format!("{} can't be looked for", file.display()))?;
    ensure!(
        !there,
        "{} is there already; use it, or move it away first",
        file.display()
    );
    let node = Node::open(&settings).await?;
    let made = node.add_operator(dir).await;
    node.close().await?;
    made?;
    output::say(&format!(
        "made an operator key: {} (keep a copy elsewhere; the keys before it work on)",
        file.display()
    ));
    Ok(Exit::Ok)
}
