//! serde's derives without a dependency on serde, and serde's attributes.

use klamm::prelude::*;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Order<'a, T: Default> {
    order_id: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    #[serde(borrow)]
    text: std::borrow::Cow<'a, str>,
    #[serde(skip)]
    more: std::marker::PhantomData<T>,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", content = "of")]
enum Shape {
    Circle { radius: f64 },
    Square(f64),
    Point,
}

#[kafka_listener(topics = "t", group = "g")]
async fn handle(shape: Json<Shape>) {
    match shape.0 {
        Shape::Circle { radius } | Shape::Square(radius) => println!("{radius}"),
        Shape::Point => {}
    }
}
