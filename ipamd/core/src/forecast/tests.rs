use super::*;

/// Seconds after a full hour.
fn at(second: u64) -> Moment {
    Moment::from_millis(3_600_000 * 1000 + second * 1000)
}

fn free(forecast: &Forecast, second: u64) -> usize {
    forecast.outlook(at(second)).free
}

/// `count` pods, all at once.
fn come(forecast: &mut Forecast, count: usize, second: u64) {
    (0..count).for_each(|_| forecast.arrived(at(second)));
}

#[test]
fn without_demand_little_is_kept_free() {
    let forecast = Forecast::default();
    assert_eq!((free(&forecast, 0), forecast.changes_at(at(0))), (LEAST, None));
}

#[test]
fn when_a_burst_begins_as_many_are_kept_free_as_a_burst_usually_takes() {
    let mut forecast = Forecast::default();
    for (size, second) in [(12, 75), (1, 200), (8, 331), (30, 555)] {
        come(&mut forecast, size, second);
    }
    assert_eq!(free(&forecast, 700), LEAST);
    come(&mut forecast, 1, 725);
    assert_eq!(free(&forecast, 725), 8, "half of the bursts are not larger");
    assert_eq!(forecast.changes_at(at(725)), Some(at(729)));
    assert_eq!(free(&forecast, 729), LEAST);
    come(&mut forecast, 20, 731);
    assert_eq!(free(&forecast, 731), 20, "this one is larger than usual");
}

#[test]
fn places_for_the_largest_burst_are_kept_for_an_hour() {
    let mut forecast = Forecast::default();
    (0..40).for_each(|pod| forecast.arrived(at(130 + pod / 4)));
    (0..500).for_each(|pod| forecast.arrived(at(200 + pod * 7)));
    let places = |second| forecast.outlook(at(second)).places;
    assert_eq!((places(3600), places(4079), places(4080), places(9000)), (40, 40, 3, 2));
}

#[test]
fn what_comes_every_hour_is_expected_right_before() {
    let mut forecast = Forecast::default();
    come(&mut forecast, 15, 3602);
    assert_eq!([7100, 7189, 7190, 7209, 7210].map(|second| free(&forecast, second)), [2, 2, 15, 15, 2]);
    assert_eq!(forecast.changes_at(at(5000)), Some(at(7190)));
    come(&mut forecast, 5, 7200);
    assert_eq!(free(&forecast, 7201), 10, "five have come already");
}

#[test]
fn what_came_twice_with_a_minute_is_expected_after_the_same_time() {
    let mut forecast = Forecast::default();
    come(&mut forecast, 6, 301);
    assert_eq!(free(&forecast, 595), LEAST, "once is chance");
    come(&mut forecast, 4, 602);
    assert_eq!(free(&forecast, 895), 4);
    come(&mut forecast, 7, 1234);
    come(&mut forecast, 7, 1534);
    assert_eq!(free(&forecast, 1831), LEAST, "what does not come with a minute does not follow the clock");
}

#[test]
fn what_had_to_wait_is_kept_free_and_given_up_by_age() {
    let mut forecast = Forecast::default();
    for _ in 0..8 {
        forecast.arrived(at(30));
        forecast.missed(at(30));
    }
    let later = [40, 3629, 3630, 7230, 10_830, 14_430].map(|second| free(&forecast, second) - LEAST);
    assert_eq!(later, [8, 8, 4, 2, 1, 0]);
    assert_eq!(forecast.changes_at(at(3700)), Some(at(3960)), "the burst is forgotten");
    assert_eq!(forecast.changes_at(at(4000)), Some(at(7230)));
}

#[test]
fn a_node_that_starts_empty_is_young_for_a_while() {
    let forecast = Forecast::new(at(0), false);
    assert_eq!((forecast.outlook(at(89)).is_young, forecast.outlook(at(90)).is_young), (true, false));
    assert_eq!(forecast.changes_at(at(10)), Some(at(90)));
    assert!(!Forecast::new(at(0), true).outlook(at(0)).is_young, "after a restart its pods are there");
}

#[test]
fn what_is_forgotten_takes_no_room() {
    let mut forecast = Forecast::default();
    (0..10_000).for_each(|pod| forecast.arrived(at(pod * 7)));
    assert!(forecast.minutes.len() <= 66 && forecast.recent.len() <= 3);
}
