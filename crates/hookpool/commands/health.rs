//! `hookpool health`: whether the server would take and show events now.

use hookpool_client::Error;
use serde_json::json;

use crate::{
    cli::{Globals, HealthArgs},
    exit::Exit,
    output,
};

pub(crate) async fn run(args: HealthArgs, globals: &Globals) -> anyhow::Result<Exit> {
    let is_json = args.output.is_json();
    match globals.server()?.ready().await {
        Ok(ready) if is_json => output::json(&ready)?,
        Ok(ready) => output::facts([
            ("status", ready.status),
            ("position", ready.position.to_string()),
            ("applied", ready.applied.to_string()),
        ])?,
        Err(Error::Problem(problem)) if is_json => {
            output::json(&json!({"status": "not ready", "problem": problem}))?;
            return Ok(Exit::Failure);
        }
        Err(Error::Problem(problem)) => {
            output::line(&output::printable_line(&format!("not ready: {problem}")))?;
            return Ok(Exit::Failure);
        }
        Err(error) => return Err(error.into()),
    }
    Ok(Exit::Ok)
}
