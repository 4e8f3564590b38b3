//! Slots of a cluster: which slot a key belongs to, and which node has it.
//!
//! The rules are those of the [cluster
//! specification](https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/).

use std::ops::Range;

/// How many slots there are.
pub(super) const SLOTS: u16 = 16_384;

/// CRC16 (XMODEM), by byte.
const CRC16: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 {
                crc << 1
            } else {
                (crc << 1) ^ 0x1021
            };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (crc << 8) ^ CRC16[usize::from((crc >> 8) as u8 ^ byte)]
    })
}

/// The part of a key that decides its slot: the text between the first `{` and the next `}`, if
/// there is any, otherwise the whole key.
fn hashed(key: &str) -> &str {
    tag(key).unwrap_or(key)
}

/// A key's hash tag.
pub(super) fn tag(key: &str) -> Option<&str> {
    let (_, rest) = key.split_once('{')?;
    let (tag, _) = rest.split_once('}')?;
    Some(tag).filter(|tag| !tag.is_empty())
}

/// The slot of a key.
pub(super) fn slot_of(key: &str) -> u16 {
    crc16(hashed(key).as_bytes()) % SLOTS
}

/// The text between a namespace and a generation's name.
const GENERATION: &str = "@gen:";

/// The key of a generation in a cluster. It has a hash tag around the resource or tag, so that both
/// generations of a resource are in one slot. If the namespace has a hash tag, all keys are in one
/// slot, and the key stays unchanged.
pub(super) fn tagged(key: &str) -> String {
    // Ids are escaped, so the last occurrence is ours.
    let Some(at) = key.rfind(GENERATION).map(|at| at + GENERATION.len()) else {
        return key.to_owned();
    };
    let (before, name) = key.split_at(at);
    if tag(before).is_some() || name.is_empty() || name.contains('{') {
        return key.to_owned();
    }
    // A tag's name begins with `~`, the character before `derived`.
    let end = name
        .char_indices()
        .skip(1)
        .find_map(|(at, c)| (c == '~').then_some(at))
        .unwrap_or(name.len());
    let end = if name.starts_with('~') {
        name.len()
    } else {
        end
    };
    let (of, rest) = name.split_at(end);
    format!("{before}{{{of}}}{rest}")
}

/// The key of a generation outside of a cluster, from the one in a cluster; `None` for all other
/// keys.
pub(super) fn untagged(key: &[u8]) -> Option<String> {
    let key = std::str::from_utf8(key).ok()?;
    let at = key.rfind(GENERATION)? + GENERATION.len();
    let (before, name) = key.split_at_checked(at)?;
    let (of, rest) = name.strip_prefix('{')?.split_once('}')?;
    let plain = format!("{before}{of}{rest}");
    (tagged(&plain) == key).then_some(plain)
}

/// The slots that a node claims, and its epoch (`CLUSTER NODES`), for comparison; `None` if it is
/// no primary.
pub(super) fn own_slots(text: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let flags = fields.nth(2)?;
        let has = |flag: &str| flags.split(',').any(|it| it == flag);
        if !has("myself") || !has("master") {
            return None;
        }
        let epoch = fields.nth(3)?;
        // Without slots that are being moved: the owner changes with the last step.
        let slots = fields.skip(1).filter(|slot| !slot.starts_with('['));
        Some(
            std::iter::once(epoch)
                .chain(slots)
                .collect::<Vec<_>>()
                .join(" "),
        )
    })
}

/// A node's view of itself and of the others (`CLUSTER NODES`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClusterView {
    /// The node's own id.
    pub(super) id: String,
    /// All nodes, itself included.
    pub(super) nodes: Vec<NodeView>,
}

/// One node in such a view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NodeView {
    pub(super) id: String,
    /// Its address; empty if a node does not know its own.
    pub(super) host: String,
    pub(super) port: u16,
    /// Its configured host name, for certificates.
    pub(super) name: Option<String>,
    pub(super) is_primary: bool,
    /// The primary of a replica.
    pub(super) primary: Option<String>,
    pub(super) epoch: u64,
    pub(super) slots: Vec<Range<u16>>,
}

impl ClusterView {
    /// Reads an answer; `None` if it is something else.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut own = None;
        let mut nodes = Vec::new();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let mut fields = line.split_ascii_whitespace();
            let (id, address, flags, primary) = (
                fields.next()?,
                fields.next()?,
                fields.next()?,
                fields.next()?,
            );
            let epoch = fields.nth(2)?.parse().ok()?;
            let _link = fields.next()?;
            let has = |flag: &str| flags.split(',').any(|it| it == flag);
            if has("myself") {
                own = Some(id.to_owned());
            }
            if has("handshake") || has("noaddr") {
                continue;
            }
            let mut parts = address.split(',');
            let (host, port) = parts.next()?.split('@').next()?.rsplit_once(':')?;
            let name = parts
                .next()
                .filter(|name| !name.is_empty() && !name.contains('='));
            nodes.push(NodeView {
                id: id.to_owned(),
                host: host.trim_matches(['[', ']']).to_owned(),
                port: port.parse().ok()?,
                name: name.map(str::to_owned),
                is_primary: has("master"),
                primary: (primary != "-").then(|| primary.to_owned()),
                epoch,
                slots: fields.filter_map(range).collect(),
            });
        }
        Some(Self { id: own?, nodes })
    }

    /// The node itself.
    pub(super) fn own(&self) -> Option<&NodeView> {
        self.nodes.iter().find(|node| node.id == self.id)
    }

    /// Whether it knows of an owner of any slot.
    pub(super) fn has_slots(&self) -> bool {
        self.nodes.iter().any(|node| !node.slots.is_empty())
    }

    /// Its epoch, if it is a primary.
    pub(super) fn epoch(&self) -> Option<u64> {
        self.own().filter(|own| own.is_primary).map(|own| own.epoch)
    }

    /// Whether it claims one of these slots.
    pub(super) fn owns_any(&self, slots: &SlotSet) -> bool {
        let own = self.own().filter(|own| own.is_primary);
        own.is_some_and(|own| {
            own.slots
                .iter()
                .cloned()
                .flatten()
                .any(|slot| slots.has(slot))
        })
    }
}

/// `0-5460` or `5461`. Slots that are being moved, in brackets, are left out.
fn range(text: &str) -> Option<Range<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse::<u16>().ok()?, last.parse::<u16>().ok()?);
    (first <= last && last < SLOTS).then(|| first..last + 1)
}

/// The owner of each slot, from the answers of all nodes, by id.
///
/// A node's statement about itself counts. Statements of others count if it has not answered. If
/// two nodes claim a slot, the one with the later epoch has it.
pub(super) fn owners(views: &[ClusterView]) -> Vec<Option<&NodeView>> {
    let mut owners: Vec<Option<&NodeView>> = vec![None; SLOTS.into()];
    let has_answered = |id: &str| views.iter().any(|view| view.id == id);
    for view in views {
        for node in &view.nodes {
            let is_own = node.id == view.id;
            if !node.is_primary || (!is_own && has_answered(&node.id)) {
                continue;
            }
            for slot in node.slots.iter().cloned().flatten() {
                let owner = &mut owners[usize::from(slot)];
                if owner.is_none_or(|other| other.epoch < node.epoch) {
                    *owner = Some(node);
                }
            }
        }
    }
    owners
}

/// A set of slots.
#[derive(Debug, Clone)]
pub(super) struct SlotSet(Box<[u64]>);

impl Default for SlotSet {
    fn default() -> Self {
        Self(vec![0; usize::from(SLOTS) / 64].into())
    }
}

impl SlotSet {
    pub(super) fn add(&mut self, slot: u16) {
        if let Some(word) = self.0.get_mut(usize::from(slot) / 64) {
            *word |= 1 << (slot % 64);
        }
    }

    pub(super) fn has(&self, slot: u16) -> bool {
        let word = self.0.get(usize::from(slot) / 64);
        word.is_some_and(|word| word & (1 << (slot % 64)) != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        // As `CLUSTER KEYSLOT` answers.
        for (key, slot) in [
            ("users:1", 11864),
            ("foo", 12182),
            ("{foo}bar", 12182),
            ("a{}b", slot_of("a{}b")),
        ] {
            assert_eq!(slot_of(key), slot, "{key}");
        }
        assert_eq!(
            slot_of("{user1000}.following"),
            slot_of("{user1000}.followers")
        );
        assert_eq!(slot_of("foo{{bar}}zap"), crc16(b"{bar") % SLOTS);
    }

    #[test]
    fn generations_of_a_resource_share_a_slot() {
        for (plain, in_cluster) in [
            ("@gen:users", "@gen:{users}"),
            ("shop:@gen:users~derived", "shop:@gen:{users}~derived"),
            ("@gen:~team:7", "@gen:{~team:7}"),
            ("@gen:~a%7Eb", "@gen:{~a%7Eb}"),
            ("{shop}:@gen:users", "{shop}:@gen:users"),
            ("users:1", "users:1"),
            ("@gen:", "@gen:"),
        ] {
            assert_eq!(tagged(plain), in_cluster);
            let back = (plain != in_cluster).then_some(plain);
            assert_eq!(untagged(in_cluster.as_bytes()).as_deref(), back);
        }
        assert_eq!(slot_of("@gen:{users}"), slot_of("@gen:{users}~derived"));
    }

    const NODES: &str = "\
07c37dfeb235213a872192d90877d0cd55635b91 127.0.0.1:30004@31004,node-4 slave e7d1eecce10fd6bb5eb35b9f99a514335d9ba9ca 0 1426238317239 4 connected
67ed2db8d677e59ec4a4cefb06858cf2a1a89fa1 127.0.0.1:30002@31002,,shard-id=aa master - 0 1426238316232 2 connected 5461-10922
e7d1eecce10fd6bb5eb35b9f99a514335d9ba9ca 127.0.0.1:30001@31001 myself,master - 0 0 1 connected 0-5459 5460 [93-<-67ed2db8d677e59ec4a4cefb06858cf2a1a89fa1]
";

    #[test]
    fn the_answer_of_a_node_is_parsed() {
        let view = ClusterView::parse(NODES).expect("a view");
        let own = view.own().expect("it knows itself");
        assert_eq!((own.port, own.epoch, view.epoch()), (30001, 1, Some(1)));
        assert_eq!(own.slots, [0..5460, 5460..5461]);
        assert_eq!(view.nodes[0].name.as_deref(), Some("node-4"));
        assert_eq!(view.nodes[0].primary.as_deref(), Some(own.id.as_str()));
        assert_eq!(view.nodes[1].name, None);
        let mut slots = SlotSet::default();
        slots.add(5461);
        assert!(!view.owns_any(&slots));
        slots.add(93);
        assert!(view.owns_any(&slots) && slots.has(93) && !slots.has(94));
        assert_eq!(ClusterView::parse("hello"), None);
        assert_eq!(own_slots(NODES).as_deref(), Some("1 0-5459 5460"));
        assert_eq!(
            own_slots(&NODES.replace("myself,master", "myself,slave")),
            None
        );
        assert_eq!(own_slots("hello"), None);
    }

    fn view(id: &str, nodes: &[(&str, u64, Range<u16>)]) -> ClusterView {
        let nodes = nodes.iter().map(|(id, epoch, slots)| NodeView {
            id: (*id).to_owned(),
            host: String::new(),
            port: 1,
            name: None,
            is_primary: true,
            primary: None,
            epoch: *epoch,
            slots: vec![slots.clone()],
        });
        ClusterView {
            id: id.to_owned(),
            nodes: nodes.collect(),
        }
    }

    fn owner(views: &[ClusterView], slot: usize) -> Option<String> {
        owners(views)[slot].map(|owner| owner.id.clone())
    }

    #[test]
    fn a_node_speaks_for_itself_and_the_later_epoch_wins() {
        let a = view("a", &[("a", 1, 0..10), ("b", 2, 10..20)]);
        let b = view("b", &[("a", 1, 0..9), ("b", 3, 9..20)]);
        // Only one of them has learnt of the move.
        assert_eq!(owner(&[a.clone(), b.clone()], 9).as_deref(), Some("b"));
        assert_eq!(owner(std::slice::from_ref(&a), 9).as_deref(), Some("a"));
        // The former owner knows, and the new one has not answered; a third is behind.
        let former = view("a", &[("a", 5, 0..9), ("b", 2, 9..20)]);
        let third = view("c", &[("a", 5, 0..10), ("b", 2, 10..20), ("c", 4, 20..30)]);
        assert_eq!(owner(&[former, third], 9).as_deref(), Some("b"));
        assert_eq!(owner(&[a, b], 25), None);
    }
}
