//! Holds answers against the OpenAPI document: status, headers, media type and body have to be as it says, and nothing may come that
//! it does not name. Objects are taken to be closed here, which they are not for clients.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{LazyLock, Mutex, PoisonError};

use boon::{Compiler, SchemaIndex, Schemas};
use serde_json::{Map, Value, json};

use super::http::Response;
use super::sse::Parser;

const TEXT: &str = include_str!("../../crates/hookpool-http/src/openapi.json");

/// Read once, with all of its schemas made ready.
pub(crate) static DOCUMENT: LazyLock<Document> = LazyLock::new(Document::read);

/// What HTTP itself adds, and what the document says once for all answers.
const HEADERS_OF_HTTP: &[&str] = &[
    "connection",
    "content-length",
    "content-type",
    "date",
    "transfer-encoding",
    "vary",
];

/// What a head may be refused with whatever it is for; so may it with a 400 of its own, which every operation but a few has.
const REFUSED_HEADS: &[u16] = &[414, 417, 431, 505];

/// How something differs from the document.
type Finding = Result<(), String>;

pub(crate) struct Document {
    pub(crate) operations: Vec<Operation>,
    schemas: Schemas,
    /// By their own texts.
    ready: BTreeMap<String, SchemaIndex>,
    /// Operations with the statuses that they answered.
    seen: Mutex<BTreeSet<(String, u16)>>,
}

/// One method of one path, with nothing but schemas referred to.
#[derive(Debug)]
pub(crate) struct Operation {
    pub(crate) id: String,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) parameters: Vec<Value>,
    /// What can be sent as JSON.
    pub(crate) body: Option<Value>,
    pub(crate) responses: BTreeMap<u16, Value>,
}

impl Document {
    fn read() -> Self {
        let mut value: Value = serde_json::from_str(TEXT).unwrap();
        close(&mut value);
        let operations = operations(&value);
        let all: BTreeMap<_, _> = operations
            .iter()
            .flat_map(Operation::schemas)
            .map(|schema| (schema.to_string(), schema))
            .collect();
        let bundle = json!({
            "components": {"schemas": value["components"]["schemas"]},
            "all": all.values().collect::<Vec<_>>(),
        });
        let mut compiler = Compiler::new();
        compiler.enable_format_assertions();
        compiler.add_resource("test:document", bundle).unwrap();
        let mut schemas = Schemas::new();
        let mut ready = BTreeMap::new();
        for (n, text) in all.into_keys().enumerate() {
            let compiled = compiler.compile(&format!("test:document#/all/{n}"), &mut schemas);
            let compiled = compiled.unwrap_or_else(|error| panic!("{error:#}: {text}"));
            ready.insert(text, compiled);
        }
        Self {
            operations,
            schemas,
            ready,
            seen: Mutex::default(),
        }
    }

    /// Asserts that an answer is as the document says.
    #[track_caller]
    pub(crate) fn check(&self, method: &str, target: &str, response: &Response) {
        let path = target.split('?').next().unwrap_or_default();
        let found = self.operation(method, path);
        let outcome = match found {
            // A head that is refused is for no path yet.
            _ if REFUSED_HEADS.contains(&response.status) => self.problem(response),
            Some(operation) => self.answered(operation, method, response),
            None => self.refused(path, response),
        };
        if let Err(finding) = outcome {
            let of = found.map_or("no operation", |operation| &operation.id);
            panic!(
                "not as the document says: {finding}; {method} {target} ({of}) gave {response:?}"
            );
        }
    }

    /// Whether a value is as a schema says.
    pub(crate) fn valid(&self, schema: &Value, value: &Value) -> Finding {
        let ready = self.ready.get(&schema.to_string());
        let ready = *ready.ok_or_else(|| format!("{schema} is not one of the document"))?;
        let outcome = self.schemas.validate(value, ready);
        outcome.map_err(|error| format!("{error:#}"))
    }

    /// Statuses that an operation answered, of this process.
    pub(crate) fn seen(&self, operation: &Operation) -> BTreeSet<u16> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let own = seen.iter().filter(|(id, _)| *id == operation.id);
        own.map(|(_, status)| *status).collect()
    }

    /// What a request is for: of the paths that fit, the one that says most.
    fn operation(&self, method: &str, path: &str) -> Option<&Operation> {
        let method = if method == "HEAD" { "GET" } else { method };
        let fitting = self.operations.iter().filter(|it| fits(&it.path, path));
        let best = fitting.clone().max_by_key(|it| literal(&it.path))?;
        let of_path = fitting.filter(|it| it.path == best.path);
        of_path.into_iter().find(|it| it.method == method)
    }

    /// What is no operation is refused in one of two ways.
    fn refused(&self, path: &str, response: &Response) -> Finding {
        let by_http = response.header("X-Request-Id").is_none() && response.body.is_empty();
        let preflight = response.header("Access-Control-Allow-Methods").is_some();
        match response.status {
            400 if by_http => Ok(()),
            204 if preflight => Ok(()),
            400 | 404 => self.problem(response),
            405 => {
                let fitting = self.operations.iter().filter(|it| fits(&it.path, path));
                let best = fitting.clone().map(|it| literal(&it.path)).max();
                let methods = fitting.filter(|it| Some(literal(&it.path)) == best);
                let documented: BTreeSet<_> = methods.map(|it| &*it.method).collect();
                let allow = response.header("Allow").unwrap_or_default().split(", ");
                let allowed: BTreeSet<_> = allow.filter(|it| *it != "HEAD").collect();
                if documented == allowed {
                    self.problem(response)
                } else {
                    Err(format!(
                        "{documented:?} are documented, {allowed:?} allowed"
                    ))
                }
            }
            status => Err(format!("{status} to what is not documented")),
        }
    }

    fn problem(&self, response: &Response) -> Finding {
        let media_type = response.header("Content-Type");
        if media_type != Some("application/problem+json") {
            return Err(format!("{media_type:?} is not that of a problem"));
        }
        let schema = json!({"$ref": "#/components/schemas/Problem"});
        match response.body.is_empty() {
            true => Ok(()),
            false => self.valid(&schema, &response.json()),
        }
    }

    fn answered(&self, operation: &Operation, method: &str, response: &Response) -> Finding {
        let by_http = response.header("X-Request-Id").is_none() && response.body.is_empty();
        if by_http && matches!(response.status, 400 | 431) {
            return Ok(());
        }
        let documented = operation.responses.get(&response.status);
        let documented = documented.ok_or_else(|| "the status is not documented".to_owned())?;
        self.headers(documented, response)?;
        if method != "HEAD" {
            self.content(documented, response)?;
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.insert((operation.id.clone(), response.status));
        Ok(())
    }

    fn headers(&self, documented: &Value, response: &Response) -> Finding {
        let none = Map::new();
        let documented = documented["headers"].as_object().unwrap_or(&none);
        for (name, header) in documented {
            let schema = &header["schema"];
            match response.header(name) {
                Some(text) => {
                    let number = text.parse().ok().map(|number: u64| json!(number));
                    let text = json!(text);
                    let valid = |value| self.valid(schema, value);
                    number
                        .as_ref()
                        .map_or_else(
                            || valid(&text),
                            |number| valid(number).or_else(|_| valid(&text)),
                        )
                        .map_err(|error| format!("{name}: {error}"))?;
                }
                None if header["required"] == true => return Err(format!("{name} is missing")),
                None => {}
            }
        }
        for (name, _) in &response.headers {
            let lower = name.to_ascii_lowercase();
            let known = HEADERS_OF_HTTP.contains(&&*lower)
                || lower.starts_with("access-control-")
                || documented
                    .keys()
                    .any(|known| known.eq_ignore_ascii_case(name));
            if !known {
                return Err(format!("the header {name} is not documented"));
            }
        }
        Ok(())
    }

    fn content(&self, documented: &Value, response: &Response) -> Finding {
        let media_type = response.header("Content-Type");
        let Some(content) = documented["content"].as_object() else {
            let empty = media_type.is_none() && response.body.is_empty();
            return empty
                .then_some(())
                .ok_or_else(|| "it has a body".to_owned());
        };
        let media_type = media_type.ok_or("it has no media type")?;
        let content = content.get(media_type);
        let content = content.ok_or_else(|| format!("{media_type} is not documented"))?;
        let item = &content["x-item-schema"];
        match media_type {
            "application/json" | "application/problem+json" => {
                self.json(&content["schema"], &response.body)
            }
            "application/x-ndjson" => {
                let mut lines = response.body.split(|byte| *byte == b'\n');
                lines.try_for_each(|line| self.json(item, line))
            }
            "text/event-stream" => {
                let mut frames = Parser::default().push(&response.body).into_iter();
                frames.try_for_each(|frame| {
                    let data: Value = serde_json::from_str(&frame.data).unwrap_or_default();
                    let mut value = json!({"event": frame.event, "data": data});
                    if let Some(id) = frame.id {
                        value["id"] = id.into();
                    }
                    self.valid(item, &value)
                })
            }
            _ => Ok(()),
        }
    }

    fn json(&self, schema: &Value, text: &[u8]) -> Finding {
        if text.is_empty() {
            return Ok(());
        }
        match serde_json::from_slice(text) {
            Ok(value) => self.valid(schema, &value),
            // A sender's number, which goes out as it came in.
            Err(error) if error.to_string().contains("number out of range") => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Operation {
    /// Of what can be sent and what is answered.
    fn schemas(&self) -> Vec<Value> {
        let contents = |of: &Value| -> Vec<Value> {
            let media_types = of["content"].as_object().into_iter().flatten();
            let content = media_types.flat_map(|(_, it)| [&it["schema"], &it["x-item-schema"]]);
            content
                .filter(|schema| !schema.is_null())
                .cloned()
                .collect()
        };
        let mut schemas: Vec<_> = self.body.iter().flat_map(contents).collect();
        schemas.extend(self.parameters.iter().map(|it| it["schema"].clone()));
        for response in self.responses.values() {
            schemas.extend(contents(response));
            let headers = response["headers"].as_object().into_iter().flatten();
            schemas.extend(headers.map(|(_, header)| header["schema"].clone()));
        }
        schemas.push(json!({"$ref": "#/components/schemas/Problem"}));
        schemas
    }
}

/// Every operation, with what it refers to in place of the reference.
fn operations(document: &Value) -> Vec<Operation> {
    let resolved = |value: &Value| -> Value {
        let place = value["$ref"]
            .as_str()
            .and_then(|place| place.strip_prefix('#'));
        let found = place.map(|place| {
            document
                .pointer(place)
                .unwrap_or_else(|| panic!("no {place}"))
        });
        found.unwrap_or(value).clone()
    };
    let response = |(status, response): (&String, &Value)| {
        let mut response = resolved(response);
        let headers = response["headers"].as_object_mut().into_iter().flatten();
        headers.for_each(|(_, header)| *header = resolved(header));
        (status.parse().unwrap(), response)
    };
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let shared = item["parameters"].as_array();
        let members = item.as_object().unwrap().iter();
        for (method, operation) in members.filter(|(name, _)| *name != "parameters") {
            let own = operation["parameters"].as_array();
            let body = operation.get("requestBody").map(resolved);
            operations.push(Operation {
                id: operation["operationId"].as_str().unwrap().to_owned(),
                method: method.to_uppercase(),
                path: path.clone(),
                parameters: shared
                    .into_iter()
                    .chain(own)
                    .flatten()
                    .map(resolved)
                    .collect(),
                body,
                responses: operation["responses"]
                    .as_object()
                    .unwrap()
                    .iter()
                    .map(response)
                    .collect(),
            });
        }
    }
    operations
}

/// Lets objects have only the members that are named, unless their schema says otherwise.
fn close(value: &mut Value) {
    match value {
        Value::Object(members) => {
            let object = match &members.get("type") {
                Some(Value::String(kind)) => kind == "object",
                Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == "object"),
                _ => false,
            };
            if object && members.contains_key("properties") {
                members
                    .entry("additionalProperties")
                    .or_insert(false.into());
            }
            members.values_mut().for_each(close);
        }
        Value::Array(values) => values.iter_mut().for_each(close),
        _ => {}
    }
}

/// Whether a path is one of those that a template stands for.
fn fits(template: &str, path: &str) -> bool {
    let (parts, segments): (Vec<_>, Vec<_>) =
        (template.split('/').collect(), path.split('/').collect());
    let fits = |(part, segment): (&&str, &&str)| match part.split_once('}') {
        Some((_, end)) => segment.strip_suffix(end).is_some_and(|it| !it.is_empty()),
        None => part == segment,
    };
    parts.len() == segments.len() && parts.iter().zip(&segments).all(fits)
}

/// Characters of a template that stand for themselves.
fn literal(template: &str) -> usize {
    let parts = template.split('{');
    parts
        .map(|part| part.split_once('}').map_or(part, |(_, end)| end).len())
        .sum()
}
