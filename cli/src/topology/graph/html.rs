//! A graph as one page that needs nothing else: inline SVG, its own style, no script, and a
//! policy that forbids the browser to load anything.

use super::{Decky, Graph, Lan, tree};
use crate::safe::clipped;

const CARD_WIDTH: usize = 250;
const CARD_HEIGHT: usize = 40;
const CARD_GAP: usize = 8;
const BOX_WIDTH: usize = CARD_WIDTH + 2 * PAD;
const HEAD: usize = 46;
const PAD: usize = 12;
const COLUMN_GAP: usize = 120;
const ROW_GAP: usize = 28;
/// What fits a card, in characters. The whole is in its title.
const CARD_TEXT: usize = 38;

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#0f172a;--soft:#475569;--line:#94a3b8;--box:#f1f5f9;--card:#fff;--dmz:#b45309;--way:#0369a1}
@media(prefers-color-scheme:dark){:root{--ink:#e2e8f0;--soft:#94a3b8;--line:#475569;--box:#1e293b;--card:#0f172a;--dmz:#f59e0b;--way:#38bdf8}}
body{font:14px/1.5 system-ui,sans-serif;color:var(--ink);margin:24px}
h1{font-size:20px;margin:0}
p{color:var(--soft);margin:4px 0 16px}
.drawing{overflow:auto}
pre{overflow:auto;line-height:1.3}
svg text{font:12px system-ui,sans-serif;fill:var(--ink)}
svg .head{font-weight:600}
svg .soft{fill:var(--soft);font-size:11px}
svg .lan{fill:var(--box);stroke:var(--line)}
svg .dmz{fill:var(--box);stroke:var(--dmz);stroke-width:3}
svg .lost{fill:none;stroke:var(--line);stroke-dasharray:5 4}
svg .card{fill:var(--card);stroke:var(--line)}
svg .edge{fill:none;stroke:var(--line);stroke-width:1.5;stroke-dasharray:4 4}
svg .routes{stroke:var(--way);stroke-width:2;stroke-dasharray:none}
";

/// Where a box stands.
#[derive(Clone, Copy, Default)]
struct Spot {
    x: usize,
    y: usize,
    height: usize,
}

/// Draws the graph: a column for each number of gateways from the DMZ, in it the LANs with the
/// deckies that are at home there, and a line to every other LAN that a decky is on.
pub(super) fn draw(graph: &Graph) -> String {
    let name = escaped(&graph.name);
    let counts = format!("{} LANs, {} deckies", graph.lans.len(), graph.deckies.len());
    let drawing = Drawing::of(graph).svg();
    let text = escaped(&tree::draw(graph));
    format!(
        "<!doctype html>\n\
         <html lang=\"en\">\n\
         <head>\n\
         <meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>{name}</title>\n\
         <style>\n{STYLE}</style>\n\
         </head>\n\
         <body>\n\
         <h1>{name}</h1>\n\
         <p>{counts}. A solid line: the decky routes; a dashed one: it is there and does not.</p>\n\
         <div class=\"drawing\">\n{drawing}</div>\n\
         <details><summary>The same as text</summary>\n<pre>{text}</pre></details>\n\
         </body>\n\
         </html>\n"
    )
}

struct Drawing<'a> {
    graph: &'a Graph,
    /// Of each LAN.
    boxes: Vec<Spot>,
    /// Of each decky that has a home.
    cards: Vec<Option<Spot>>,
    /// The box of deckies that are on no LAN.
    lost: Option<Spot>,
    width: usize,
    height: usize,
}

impl<'a> Drawing<'a> {
    fn of(graph: &'a Graph) -> Self {
        let mut residents: Vec<Vec<usize>> = vec![Vec::new(); graph.lans.len()];
        let mut homeless = Vec::new();
        for (index, decky) in graph.deckies.iter().enumerate() {
            match decky.home() {
                Some(home) => residents[home.lan].push(index),
                None => homeless.push(index),
            }
        }
        let mut this = Self {
            graph,
            boxes: vec![Spot::default(); graph.lans.len()],
            cards: vec![None; graph.deckies.len()],
            lost: None,
            width: 0,
            height: 0,
        };
        let columns = graph.lans.iter().map(|lan| lan.level + 1).max();
        let mut bottoms = vec![0; columns.unwrap_or(1)];
        for lan in graph.order.iter().copied() {
            let level = graph.lans[lan].level;
            this.boxes[lan] = this.place(level, &mut bottoms[level], &residents[lan]);
        }
        if !homeless.is_empty() {
            this.lost = Some(this.place(0, &mut bottoms[0], &homeless));
        }
        this
    }

    /// Puts a box below the last one of a column, and cards into it.
    fn place(&mut self, column: usize, bottom: &mut usize, deckies: &[usize]) -> Spot {
        let spot = Spot {
            x: 1 + column * (BOX_WIDTH + COLUMN_GAP),
            y: 2 + *bottom,
            height: HEAD + deckies.len() * (CARD_HEIGHT + CARD_GAP) + PAD - CARD_GAP.min(PAD),
        };
        for (row, decky) in deckies.iter().enumerate() {
            self.cards[*decky] = Some(Spot {
                x: spot.x + PAD,
                y: spot.y + HEAD + row * (CARD_HEIGHT + CARD_GAP),
                height: CARD_HEIGHT,
            });
        }
        *bottom = spot.y + spot.height + ROW_GAP;
        self.height = self.height.max(spot.y + spot.height + 2);
        // A line between two boxes of one column swings out to the right.
        self.width = self.width.max(spot.x + BOX_WIDTH + COLUMN_GAP);
        spot
    }

    fn svg(&self) -> String {
        let (width, height) = (self.width.max(1), self.height.max(1));
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" width=\"{width}\" \
             height=\"{height}\" viewBox=\"0 0 {width} {height}\">\n<title>{}</title>\n",
            escaped(&self.graph.name)
        );
        for (lan, spot) in self.graph.lans.iter().zip(&self.boxes) {
            out.push_str(&lan_box(lan, *spot));
        }
        if let Some(spot) = self.lost {
            out.push_str(&frame("lost", spot, "on no LAN", ""));
        }
        for (index, place, _) in self.graph.memberships() {
            if let (Some(card), false) = (self.cards[index], place.home) {
                let routes = self.graph.deckies[index].routes;
                let line = line(card, self.boxes[place.lan]);
                let class = if routes { "edge routes" } else { "edge" };
                let address = place.address.as_deref().unwrap_or("the next free address");
                let title = format!(
                    "{} on {} as {address}",
                    self.graph.deckies[index].name, self.graph.lans[place.lan].name
                );
                out.push_str(&format!(
                    "<path class=\"{class}\" d=\"{line}\"><title>{}</title></path>\n",
                    escaped(&title)
                ));
            }
        }
        for (decky, card) in self.graph.deckies.iter().zip(&self.cards) {
            if let Some(spot) = card {
                out.push_str(&card_of(decky, *spot));
            }
        }
        out.push_str("</svg>\n");
        out
    }
}

fn lan_box(lan: &Lan, spot: Spot) -> String {
    let (class, note) = match (lan.is_dmz, lan.reached) {
        (true, _) => ("dmz", " (DMZ)"),
        (false, true) => ("lan", ""),
        (false, false) => ("lan", " (not reached from a DMZ)"),
    };
    frame(class, spot, &lan.name, &format!("{}{note}", lan.subnet))
}

fn frame(class: &str, spot: Spot, head: &str, below: &str) -> String {
    let Spot { x, y, height } = spot;
    format!(
        "<g><title>{} {}</title>\
         <rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{BOX_WIDTH}\" height=\"{height}\" rx=\"8\"/>\
         {}{}</g>\n",
        escaped(head),
        escaped(below),
        text("head", x + PAD, y + 20, head),
        text("soft", x + PAD, y + 36, below),
    )
}

fn card_of(decky: &Decky, spot: Spot) -> String {
    let Spot { x, y, height } = spot;
    let address = decky.home().and_then(|place| place.address.as_deref());
    let head = match address {
        Some(address) => format!("{} {address}", decky.name),
        None => decky.name.clone(),
    };
    let about = decky.about().join("; ");
    format!(
        "<g><title>{}: {}</title>\
         <rect class=\"card\" x=\"{x}\" y=\"{y}\" width=\"{CARD_WIDTH}\" height=\"{height}\" rx=\"6\"/>\
         {}{}</g>\n",
        escaped(&head),
        escaped(&about),
        text("head", x + 10, y + 17, &head),
        text("soft", x + 10, y + 32, &about),
    )
}

fn text(class: &str, x: usize, y: usize, words: &str) -> String {
    let words = escaped(&clipped(words, CARD_TEXT));
    format!("<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{words}</text>")
}

/// A curve from a card to the head of a box, out of the sides that face each other.
fn line(card: Spot, to: Spot) -> String {
    let (y1, y2) = (card.y + card.height / 2, to.y + HEAD / 2);
    let swing = COLUMN_GAP / 2;
    let (left, right) = (card.x, card.x + CARD_WIDTH);
    let (x1, c1, c2, x2) = if to.x > right {
        (right, right + swing, to.x.saturating_sub(swing), to.x)
    } else if to.x + BOX_WIDTH < left {
        let edge = to.x + BOX_WIDTH;
        (left, left.saturating_sub(swing), edge + swing, edge)
    } else {
        let edge = to.x + BOX_WIDTH;
        (right, edge + swing, edge + swing, edge)
    };
    format!("M{x1} {y1}C{c1} {y1} {c2} {y2} {x2} {y2}")
}

/// Text in an element or a quoted attribute.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}
