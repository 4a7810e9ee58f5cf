//! `hookpool operator recover`: the second way in, for who may write to the data folder.

use anyhow::{Context, ensure};

use crate::{cli::OperatorRecoverArgs, config::Settings, exit::Exit, keys, node::Node, output};

/// Makes another operator key on a folder that nobody serves.
pub(crate) async fn recover(
    args: &OperatorRecoverArgs,
    settings: Settings,
) -> anyhow::Result<Exit> {
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
    let made = node.add_operator(dir, args.revoke_others).await;
    node.close().await?;
    made?;
    let others = match args.revoke_others {
        true => "all others are revoked",
        false => "the keys before it work on",
    };
    output::say(&format!(
        "made an operator key: {} (keep a copy elsewhere; {others})",
        file.display()
    ));
    Ok(Exit::Ok)
}
