"""The 80 classes of COCO and everyday words for them, written for this table; plurals are found without being listed.

A word that names several classes, or a part of a thing, is left out. Phrases come before the words in them: a hot dog
is no dog, a toy car no car.
"""

from __future__ import annotations

_LINES = """
person: man, woman, men, women, boy, girl, child, children, kid, baby, toddler, people, lady, guy, gentleman, adult,
  pedestrian, player, skier, surfer, skateboarder, snowboarder, cyclist, rider, passenger, driver, chef, worker
bicycle: bike
car: sedan, taxi, cab, automobile, hatchback, suv, jeep, minivan
motorcycle: motorbike, scooter, moped
airplane: plane, jet, aircraft, airliner, aeroplane
bus: minibus, double decker
train: locomotive, tram, streetcar
truck: lorry, pickup, pickup truck, fire engine, firetruck
boat: ship, sailboat, canoe, kayak, ferry, yacht, rowboat, dinghy
traffic light: stoplight, traffic signal, stop light
fire hydrant: hydrant
stop sign:
parking meter:
bench: park bench
bird: pigeon, seagull, gull, duck, goose, geese, parrot, sparrow, owl, eagle, swan, hen, rooster
cat: kitten, kitty
dog: puppy, puppies, pup, poodle, terrier, retriever, bulldog, labrador
horse: pony, foal, stallion, mare
sheep: lamb, ram, ewe
cow: cattle, bull, calf, calves, ox, oxen, heifer
elephant:
bear: polar bear, panda, grizzly
zebra:
giraffe:
backpack: rucksack, knapsack
umbrella: parasol
handbag: purse, tote bag
tie: necktie, bow tie, bowtie
suitcase: luggage, baggage
frisbee:
skis: ski
snowboard:
sports ball: ball, soccer ball, football, basketball, baseball, tennis ball, volleyball
kite:
baseball bat:
baseball glove: catcher's mitt, mitt
skateboard: longboard
surfboard:
tennis racket: racket, racquet, tennis racquet
bottle: flask
wine glass: wineglass, goblet
cup: mug, teacup
fork:
knife: knives
spoon:
bowl:
banana:
apple:
sandwich: hamburger, burger, cheeseburger, panini
orange: tangerine, clementine
broccoli:
carrot:
hot dog: hotdog
pizza:
donut: doughnut
cake: cupcake, cheesecake
chair: armchair, stool
couch: sofa, loveseat
potted plant: houseplant, pot plant
bed:
dining table: table, desk, coffee table
toilet:
tv: television, television set, tv set
laptop: notebook computer, laptop computer
mouse: computer mouse
remote: remote control
keyboard: computer keyboard
cell phone: phone, cellphone, smartphone, mobile phone, iphone
microwave: microwave oven
oven: stove
toaster:
sink: washbasin
refrigerator: fridge, freezer
book: textbook, novel
clock: wall clock, alarm clock
vase:
scissors:
teddy bear: teddy, stuffed bear
hair drier: hair dryer, hairdryer, blow dryer
toothbrush:
"""

#: Words that hold a class's name and name something else.
OTHER = (
    *("toy car", "toy train", "toy truck", "train station", "train track", "bus stop", "bus station", "car park"),
    *("bird house", "birdhouse", "dog house", "doghouse", "horse shoe", "cat food", "dog food", "apple pie"),
    *("orange juice", "carrot cake", "table tennis", "water ski", "clock tower", "book shelf", "ball park"),
)


def table() -> dict[str, list[str]]:
    """Class and further words for it.

    >>> table()["couch"], len(table())
    (['sofa', 'loveseat'], 80)
    """
    lines = _LINES.replace(",\n  ", ", ").strip().splitlines()
    return {
        name: [word.strip() for word in words.split(",") if word.strip()]
        for name, _, words in (line.partition(":") for line in lines)
    }
