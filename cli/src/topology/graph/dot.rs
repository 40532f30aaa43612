//! A graph in the language of Graphviz.

use super::Graph;

/// Draws the graph, downwards from the DMZ.
pub(super) fn draw(graph: &Graph) -> String {
    let mut text = format!("graph \"{}\" {{\n", escaped(&graph.name));
    text.push_str("  node [fontname=\"sans-serif\", fontsize=10];\n");
    text.push_str("  edge [fontname=\"sans-serif\", fontsize=8];\n");
    for (index, lan) in graph.lans.iter().enumerate() {
        let width = if lan.is_dmz { 3 } else { 1 };
        text.push_str(&format!(
            "  lan{index} [shape=box, penwidth={width}, label=\"{}\\n{}\"];\n",
            escaped(&lan.name),
            escaped(&lan.subnet)
        ));
    }
    for (index, decky) in graph.deckies.iter().enumerate() {
        let mut lines = vec![escaped(&decky.name)];
        lines.extend(decky.about().iter().map(|line| escaped(line)));
        text.push_str(&format!(
            "  decky{index} [shape=box, style=rounded, label=\"{}\"];\n",
            lines.join("\\n")
        ));
    }
    for (decky, place, leads_there) in graph.memberships() {
        let lan = place.lan;
        let (from, to) = if leads_there {
            (format!("decky{decky}"), format!("lan{lan}"))
        } else {
            (format!("lan{lan}"), format!("decky{decky}"))
        };
        let style = if graph.deckies[decky].routes {
            "bold"
        } else {
            "solid"
        };
        let label = place.address.as_deref().unwrap_or_default();
        text.push_str(&format!(
            "  {from} -- {to} [style={style}, label=\"{}\"];\n",
            escaped(label)
        ));
    }
    text.push_str("}\n");
    text
}

/// Text between quotes. In labels a backslash and an ampersand begin something.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('&', "&amp;")
}
