//! The state of every link from one place to another, and what becomes of a packet on it. Pure: randomness comes in.

use rand::Rng;

use crate::chaos::faults::{Fault, Hurt};

/// A process of the cluster, or its clients, as the network knows them: 0 is the runner with its clients, 1 the meta
/// server, the storage nodes follow.
pub type Place = usize;

/// The runner's own place.
pub const RUNNER: Place = 0;
/// The meta server's place.
pub const META: Place = 1;
/// The first storage node's place.
pub const FIRST_NODE: Place = 2;

/// How packets fare from one place to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// None arrives.
    pub cut: bool,
    /// All arrive later by this.
    pub delay_us: u32,
    /// And by up to this more, each by its own, so that they overtake each other.
    pub jitter_us: u32,
    /// Of a thousand packets so many are lost.
    pub loss_per_mille: u16,
}

/// What becomes of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is lost.
    Lost,
    /// It arrives after this many microseconds.
    After(u32),
}

/// All links between some places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Links {
    places: usize,
    links: Vec<Link>,
}

impl Links {
    /// Links that are well.
    pub fn new(places: usize) -> Links {
        Links { places, links: vec![Link::default(); places * places] }
    }

    /// The links under these faults, of which several may hurt one link: any cut cuts it, the worst delay and the
    /// worst loss count.
    pub fn under<'a>(places: usize, faults: impl Iterator<Item = &'a Fault>) -> Links {
        let mut links = Links::new(places);
        for fault in faults {
            match fault {
                Fault::Cut { hurt } => links.each(hurt, |link| link.cut = true),
                Fault::Delay { hurt, delay_us, jitter_us, loss_per_mille } => links.each(hurt, |link| {
                    link.delay_us = link.delay_us.max(*delay_us);
                    link.jitter_us = link.jitter_us.max(*jitter_us);
                    link.loss_per_mille = link.loss_per_mille.max(*loss_per_mille);
                }),
                Fault::Kill { .. } | Fault::Stop { .. } | Fault::Disk { .. } => {}
            }
        }
        links
    }

    /// One link.
    pub fn link(&self, from: Place, to: Place) -> Link {
        self.links[from * self.places + to]
    }

    /// What becomes of a packet.
    pub fn fate(&self, from: Place, to: Place, random: &mut impl Rng) -> Fate {
        let link = self.link(from, to);
        if link.cut || (link.loss_per_mille > 0 && random.random_range(0..1000) < link.loss_per_mille) {
            return Fate::Lost;
        }
        let jitter = if link.jitter_us > 0 { random.random_range(0..=link.jitter_us) } else { 0 };
        Fate::After(link.delay_us + jitter)
    }

    fn each(&mut self, hurt: &Hurt, change: impl Fn(&mut Link)) {
        for from in 0..self.places {
            for to in 0..self.places {
                if from != to && hurt.covers(from, to) {
                    change(&mut self.links[from * self.places + to]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    #[test]
    fn a_one_way_cut_leaves_the_way_back() {
        let fault = Fault::Cut { hurt: Hurt { from: vec![2], to: vec![3], both_ways: false } };
        let links = Links::under(5, std::iter::once(&fault));
        let mut random = SmallRng::seed_from_u64(1);
        assert_eq!(links.fate(2, 3, &mut random), Fate::Lost);
        assert_eq!(links.fate(3, 2, &mut random), Fate::After(0));
        assert_eq!(links.fate(2, 4, &mut random), Fate::After(0));
        let fault = Fault::Cut { hurt: Hurt { from: vec![2], to: vec![0, 1, 3, 4], both_ways: true } };
        let links = Links::under(5, std::iter::once(&fault));
        let cut = (0..25).filter(|pair| links.link(pair / 5, pair % 5).cut).count();
        assert_eq!(cut, 8, "one place is cut off from four, both ways");
    }

    #[test]
    fn the_worst_of_several_faults_counts() {
        let hurt = Hurt { from: vec![2], to: vec![3], both_ways: true };
        let delay =
            |delay_us, loss_per_mille| Fault::Delay { hurt: hurt.clone(), delay_us, jitter_us: 7, loss_per_mille };
        let faults = [delay(100, 20), delay(50, 400)];
        let link = Links::under(4, faults.iter()).link(3, 2);
        assert_eq!(link, Link { cut: false, delay_us: 100, jitter_us: 7, loss_per_mille: 400 });
        let mut random = SmallRng::seed_from_u64(1);
        let links = Links::under(4, faults.iter());
        let fates: Vec<Fate> = (0..1000).map(|_| links.fate(2, 3, &mut random)).collect();
        let lost = fates.iter().filter(|fate| **fate == Fate::Lost).count();
        assert!((300..500).contains(&lost), "{lost} of 1000 with 400 per mille");
        assert!(fates.iter().all(|fate| matches!(fate, Fate::Lost | Fate::After(100..=107))));
    }
}
