//! A document as a page for people.

use std::fmt::Write;

use serde_json::{Map, Value};

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}\
    table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #ccc;\
    vertical-align:top}pre{background:#f5f5f5;padding:.6rem;overflow:auto}code{font-family:ui-monospace,monospace}";

/// The page. Whatever stands in the document is text there, never markup.
pub(super) fn page(document: &Value) -> String {
    let (title, version) = (text(&document["info"]["title"]), text(&document["info"]["version"]));
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
         <style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n<p>Version {version}; AsyncAPI {}.</p>\n",
        text(&document["asyncapi"])
    );
    for (name, server) in entries(&document["servers"]) {
        line(
            &mut page,
            format_args!("<p>Server {}: <code>{}</code></p>", escaped(name), text(&server["host"])),
        );
    }
    line(
        &mut page,
        format_args!("<h2>Operations</h2>\n<table><tr><th>Operation</th><th></th><th>Channel</th>"),
    );
    line(&mut page, format_args!("<th>Messages</th><th>Group</th><th>Reply</th></tr>"));
    for (id, operation) in entries(&document["operations"]) {
        let group = text(&operation["bindings"]["kafka"]["groupId"]["enum"][0]);
        let reply = match operation.get("reply") {
            Some(reply) => format!("{}: {}", link(&reply["channel"]), links(&reply["messages"])),
            None => String::new(),
        };
        let (channel, messages) = (link(&operation["channel"]), links(&operation["messages"]));
        let row = [escaped(id), text(&operation["action"]), channel, messages, group, reply];
        line(&mut page, format_args!("<tr><td>{}</td></tr>", row.join("</td><td>")));
    }
    line(&mut page, format_args!("</table>\n<h2>Channels</h2>"));
    for (id, channel) in entries(&document["channels"]) {
        line(&mut page, format_args!("<h3 id=\"channels-{0}\">{0}</h3>", escaped(id)));
        let kafka = &channel["bindings"]["kafka"];
        let mut said = text(&channel["description"]);
        for (name, value) in [("partitions", &kafka["partitions"]), ("replicas", &kafka["replicas"])] {
            if let Some(number) = value.as_i64() {
                let _ = write!(said, "{number} {name}. ");
            }
        }
        let names: Vec<_> = entries(&channel["messages"]).map(|(name, _)| anchor("messages", name)).collect();
        line(&mut page, format_args!("<p>{said}</p><p>{}</p>", names.join(", ")));
    }
    line(&mut page, format_args!("<h2>Messages</h2>"));
    for (name, message) in entries(&document["components"]["messages"]) {
        line(&mut page, format_args!("<h3 id=\"messages-{0}\">{0}</h3>", escaped(name)));
        if let Some(content_type) = message["contentType"].as_str() {
            line(&mut page, format_args!("<p>Content type <code>{}</code></p>", escaped(content_type)));
        }
        block(&mut page, "Key", &message["bindings"]["kafka"]["key"]);
        block(&mut page, "Headers", &message["headers"]);
        block(&mut page, "Payload", &message["payload"]);
    }
    line(&mut page, format_args!("<h2>Schemas</h2>"));
    for (name, schema) in entries(&document["components"]["schemas"]) {
        block(&mut page, name, schema);
    }
    page.push_str("</body></html>\n");
    page
}

fn line(page: &mut String, line: std::fmt::Arguments<'_>) {
    // A string takes whatever is written to it.
    let _ = writeln!(page, "{line}");
}

fn block(page: &mut String, called: &str, value: &Value) {
    if !value.is_null() {
        let (called, value) = (escaped(called), escaped(&format!("{value:#}")));
        line(page, format_args!("<h4>{called}</h4><pre><code>{value}</code></pre>"));
    }
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

/// Links to what references lead to.
fn links(references: &Value) -> String {
    let all = references.as_array().into_iter().flatten();
    all.map(link).collect::<Vec<_>>().join(", ")
}

fn link(reference: &Value) -> String {
    let pointer = reference["$ref"].as_str().unwrap_or_default();
    let name = pointer.rsplit('/').next().unwrap_or_default();
    let kind = if pointer.contains("/messages/") { "messages" } else { "channels" };
    anchor(kind, name)
}

fn anchor(kind: &str, name: &str) -> String {
    format!("<a href=\"#{kind}-{0}\">{0}</a>", escaped(name))
}

fn text(value: &Value) -> String {
    escaped(value.as_str().unwrap_or_default())
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}
