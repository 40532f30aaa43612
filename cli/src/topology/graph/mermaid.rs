//! A graph as a Mermaid flowchart.

use super::Graph;

/// Draws the graph, downwards from the DMZ.
pub(super) fn draw(graph: &Graph) -> String {
    let mut text = String::from("flowchart TD\n");
    for (index, lan) in graph.lans.iter().enumerate() {
        let class = if lan.is_dmz { "dmz" } else { "lan" };
        text.push_str(&format!(
            "  lan{index}[[\"{}<br/>{}\"]]:::{class}\n",
            escaped(&lan.name),
            escaped(&lan.subnet)
        ));
    }
    for (index, decky) in graph.deckies.iter().enumerate() {
        let mut lines = vec![escaped(&decky.name)];
        lines.extend(decky.about().iter().map(|line| escaped(line)));
        text.push_str(&format!(
            "  decky{index}(\"{}\"):::decky\n",
            lines.join("<br/>")
        ));
    }
    for (decky, place, leads_there) in graph.memberships() {
        let line = if graph.deckies[decky].routes {
            "==="
        } else {
            "---"
        };
        let label = place
            .address
            .as_deref()
            .map(|address| format!("|\"{}\"|", escaped(address)))
            .unwrap_or_default();
        let lan = place.lan;
        if leads_there {
            text.push_str(&format!("  decky{decky} {line}{label} lan{lan}\n"));
        } else {
            text.push_str(&format!("  lan{lan} {line}{label} decky{decky}\n"));
        }
    }
    text.push_str("  classDef dmz stroke:#b45309,stroke-width:3px\n");
    text.push_str("  classDef lan stroke:#475569,stroke-width:2px\n");
    text.push_str("  classDef decky stroke:#64748b\n");
    text
}

/// Text between quotes. Whatever might be Markdown, HTML or an entity is written by its number.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_alphanumeric() || " .,:/-_".contains(character) {
            out.push(character);
        } else {
            out.push_str(&format!("#{};", u32::from(character)));
        }
    }
    out
}
