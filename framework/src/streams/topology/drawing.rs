//! A topology as a picture: what follows stands below, sub-topologies side by side.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use super::describe::{NodeDescription, SubTopologyDescription, TopologyDescription};

const ROW: usize = 84;
const BOX_HEIGHT: usize = 36;
const GAP: usize = 24;
const MARGIN: usize = 24;
/// Of a letter of the drawing's font.
const LETTER: usize = 8;

impl TopologyDescription {
    /// The topology as a drawing in SVG: nodes in layers, edges between them, topics and stores written to the nodes
    /// that use them.
    pub fn to_svg(&self) -> String {
        let (mut body, mut left, mut lowest) = (String::new(), MARGIN, 0);
        for sub_topology in &self.sub_topologies {
            let (width, height) = draw(&mut body, sub_topology, left);
            left += width + GAP;
            lowest = lowest.max(height);
        }
        let (width, height) = (left + MARGIN - GAP.min(left), lowest + 2 * MARGIN);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
             height=\"{height}\" font-family=\"monospace\" font-size=\"13\">\n\
             <style>rect{{fill:#fff;stroke:#444}}.group{{fill:#f4f4f0;stroke:#bbb}}.source{{fill:#dfeee0}}\
             .sink{{fill:#f3e3d3}}.state{{fill:#dde6f3}}line{{stroke:#444}}.note{{fill:#666;font-size:11px}}</style>\n\
             {body}</svg>\n"
        )
    }
}

/// A node in its place.
struct Placed<'a> {
    node: &'a NodeDescription,
    layer: usize,
    x: usize,
    width: usize,
}

/// Draws a sub-topology; gives its width and height.
fn draw(into: &mut String, sub_topology: &SubTopologyDescription, left: usize) -> (usize, usize) {
    let placed = place(sub_topology, left + GAP);
    let right = placed.values().map(|node| node.x + node.width).max().unwrap_or(left + GAP) + GAP;
    let layers = placed.values().map(|node| node.layer + 1).max().unwrap_or(0);
    let (width, height) = (right - left, layers * ROW + GAP);
    // What is written to a string cannot fail.
    let _ = writeln!(
        into,
        "<rect class=\"group\" x=\"{left}\" y=\"{MARGIN}\" width=\"{width}\" height=\"{height}\" rx=\"6\"/>\n\
         <text class=\"note\" x=\"{}\" y=\"{}\">sub-topology {}</text>",
        left + 8,
        MARGIN + 16,
        sub_topology.id
    );
    let ordered: BTreeMap<(usize, usize), &Placed<'_>> =
        placed.values().map(|node| ((node.layer, node.x), node)).collect();
    for parent in ordered.values() {
        for child in successors(parent.node).iter().filter_map(|name| placed.get(name.as_str())) {
            let _ = writeln!(
                into,
                "<line x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\"/>",
                parent.x + parent.width / 2,
                top(parent) + BOX_HEIGHT,
                child.x + child.width / 2,
                top(child)
            );
        }
    }
    ordered.values().for_each(|node| draw_node(into, node));
    (width, height)
}

fn draw_node(into: &mut String, placed: &Placed<'_>) {
    let (x, y, width) = (placed.x, top(placed), placed.width);
    let (label, note) = texts(placed.node);
    let class = match placed.node {
        NodeDescription::Source { .. } => "source",
        NodeDescription::Sink { .. } => "sink",
        NodeDescription::Processor { stores, .. } if !stores.is_empty() => "state",
        NodeDescription::Processor { .. } => "step",
    };
    let _ = writeln!(
        into,
        "<g><title>{}</title><rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{BOX_HEIGHT}\" \
         rx=\"4\"/><text x=\"{}\" y=\"{}\">{}</text><text class=\"note\" x=\"{}\" y=\"{}\">{}</text></g>",
        escaped(name(placed.node)),
        x + 8,
        y + 16,
        escaped(&label),
        x + 8,
        y + 30,
        escaped(&note)
    );
}

fn top(placed: &Placed<'_>) -> usize {
    MARGIN + GAP + placed.layer * ROW
}

/// Each node as far down as its longest path from a source, and beside those that are as far.
fn place(sub_topology: &SubTopologyDescription, left: usize) -> HashMap<&str, Placed<'_>> {
    let mut layers: HashMap<&str, usize> = HashMap::new();
    // Parents stand before their children; of a document that was written by hand, nothing but the picture suffers.
    for node in &sub_topology.nodes {
        let layer = layers.get(name(node)).copied().unwrap_or(0);
        layers.insert(name(node), layer);
        for child in successors(node) {
            let below = layers.entry(child).or_insert(0);
            *below = (*below).max(layer + 1);
        }
    }
    let mut next: HashMap<usize, usize> = HashMap::new();
    let mut placed = HashMap::new();
    for node in &sub_topology.nodes {
        let layer = layers.get(name(node)).copied().unwrap_or(0);
        let (label, note) = texts(node);
        let width = label.chars().count().max(note.chars().count()) * LETTER + 16;
        let x = next.entry(layer).or_insert(left);
        placed.insert(name(node), Placed { node, layer, x: *x, width });
        *x += width + GAP;
    }
    placed
}

fn name(node: &NodeDescription) -> &str {
    match node {
        NodeDescription::Source { name, .. }
        | NodeDescription::Processor { name, .. }
        | NodeDescription::Sink { name, .. } => name,
    }
}

fn successors(node: &NodeDescription) -> &[String] {
    match node {
        NodeDescription::Source { successors, .. } | NodeDescription::Processor { successors, .. } => {
            successors
        }
        NodeDescription::Sink { .. } => &[],
    }
}

/// What a node is called, without the path that the picture shows, and what it uses.
fn texts(node: &NodeDescription) -> (String, String) {
    let below = |predecessors: &[String], name: &str| {
        let path = predecessors.iter().find_map(|before| name.strip_prefix(&**before)?.strip_prefix('.'));
        path.unwrap_or(name).to_owned()
    };
    match node {
        NodeDescription::Source { name, topics, .. } => {
            (name.clone(), format!("reads {}", topics.join(", ")))
        }
        NodeDescription::Processor { name, stores, predecessors, .. } => {
            let note = if stores.is_empty() { String::new() } else { format!("keeps {}", stores.join(", ")) };
            (below(predecessors, name), note)
        }
        NodeDescription::Sink { name, topic, predecessors } => {
            let topic = topic.as_deref().unwrap_or("what each record chooses");
            (below(predecessors, name), format!("writes {topic}"))
        }
    }
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            // Not even an escaped control character may stand in XML.
            control if control.is_control() => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}
