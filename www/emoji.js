/** Emoji by name: a few hundred common ones, as `:name:`. Pure. */

const TABLE = `
smile 😄 smiley 😃 grin 😁 grinning 😀 laughing 😆 joy 😂 rofl 🤣 sweat_smile 😅 slight_smile 🙂 upside_down 🙃 wink 😉
blush 😊 innocent 😇 smiling_hearts 🥰 heart_eyes 😍 star_struck 🤩 kiss 😘 yum 😋 tongue 😛 zany 🤪 money_mouth 🤑 hug 🤗
shush 🤫 thinking 🤔 zipper_mouth 🤐 raised_eyebrow 🤨 neutral 😐 expressionless 😑 no_mouth 😶 smirk 😏 unamused 😒
eye_roll 🙄 grimace 😬 relieved 😌 pensive 😔 sleepy 😪 drool 🤤 sleeping 😴 mask 😷 sick 🤒 nauseated 🤢 sneeze 🤧 hot 🥵
cold 🥶 woozy 🥴 dizzy_face 😵 exploding_head 🤯 cowboy 🤠 party 🥳 sunglasses 😎 nerd 🤓 monocle 🧐 confused 😕 worried 😟
frown 🙁 open_mouth 😮 astonished 😲 flushed 😳 pleading 🥺 fearful 😨 cold_sweat 😰 cry 😢 sob 😭 scream 😱 weary 😩
tired 😫 yawn 🥱 triumph 😤 angry 😠 rage 😡 swearing 🤬 devil 😈 skull 💀 poop 💩 clown 🤡 ghost 👻 alien 👽 robot 🤖
melting 🫠 salute 🫡 peeking 🫣 see_no_evil 🙈 hear_no_evil 🙉 speak_no_evil 🙊
wave 👋 raised_hand ✋ ok_hand 👌 pinch 🤏 victory ✌️ crossed_fingers 🤞 love_you 🤟 metal 🤘 call_me 🤙 point_left 👈
point_right 👉 point_up 👆 point_down 👇 thumbsup 👍 +1 👍 thumbsdown 👎 -1 👎 fist ✊ punch 👊 clap 👏 raised_hands 🙌
open_hands 👐 handshake 🤝 pray 🙏 writing ✍️ muscle 💪 brain 🧠 eyes 👀 eye 👁️ ear 👂 nose 👃 tongue_out 👅 lips 👄
shrug 🤷 facepalm 🤦 bow 🙇 ok_person 🙆 no_good 🙅 raising_hand 🙋 running 🏃 walking 🚶 dancer 💃 swimmer 🏊 biker 🚴
baby 👶 child 🧒 person 🧑 older_person 🧓 detective 🕵️ guard 💂 ninja 🥷 wizard 🧙 zombie 🧟 technologist 🧑‍💻 astronaut 🧑‍🚀
heart ❤️ orange_heart 🧡 yellow_heart 💛 green_heart 💚 blue_heart 💙 purple_heart 💜 black_heart 🖤 white_heart 🤍
broken_heart 💔 two_hearts 💕 sparkling_heart 💖 100 💯 boom 💥 dizzy 💫 sweat_drops 💦 dash 💨 zzz 💤 speech 💬 thought 💭
dog 🐶 cat 🐱 mouse 🐭 hamster 🐹 rabbit 🐰 fox 🦊 bear 🐻 panda 🐼 koala 🐨 tiger 🐯 lion 🦁 cow 🐮 pig 🐷 frog 🐸 monkey 🐵
chicken 🐔 penguin 🐧 bird 🐦 duck 🦆 eagle 🦅 owl 🦉 bat 🦇 wolf 🐺 horse 🐴 unicorn 🦄 bee 🐝 bug 🐛 butterfly 🦋 snail 🐌
ladybug 🐞 ant 🐜 spider 🕷️ turtle 🐢 snake 🐍 octopus 🐙 crab 🦀 fish 🐟 dolphin 🐬 whale 🐳 shark 🦈 elephant 🐘 otter 🦦
hedgehog 🦔 sloth 🦥 badger 🦡 paw 🐾 dragon 🐉 seal 🦭 beaver 🦫
bouquet 💐 cherry_blossom 🌸 rose 🌹 sunflower 🌻 tulip 🌷 seedling 🌱 tree 🌳 evergreen 🌲 palm 🌴 cactus 🌵 clover 🍀 leaf 🍃
mushroom 🍄 earth 🌍 moon 🌙 full_moon 🌕 sun ☀️ star ⭐ glowing_star 🌟 cloud ☁️ rain 🌧️ lightning ⚡ zap ⚡ snowflake ❄️
snowman ⛄ fire 🔥 droplet 💧 ocean 🌊 rainbow 🌈 umbrella ☔ comet ☄️
apple 🍎 pear 🍐 orange 🍊 lemon 🍋 banana 🍌 watermelon 🍉 grapes 🍇 strawberry 🍓 blueberries 🫐 cherries 🍒 peach 🍑 mango 🥭
pineapple 🍍 coconut 🥥 kiwi 🥝 tomato 🍅 avocado 🥑 broccoli 🥦 carrot 🥕 corn 🌽 pepper 🌶️ bread 🍞 croissant 🥐 cheese 🧀
egg 🥚 pancakes 🥞 bacon 🥓 burger 🍔 fries 🍟 pizza 🍕 hotdog 🌭 taco 🌮 burrito 🌯 salad 🥗 spaghetti 🍝 ramen 🍜 curry 🍛
sushi 🍣 rice 🍚 dumpling 🥟 icecream 🍦 doughnut 🍩 cookie 🍪 cake 🍰 birthday 🎂 chocolate 🍫 candy 🍬 popcorn 🍿 honey 🍯
milk 🥛 coffee ☕ tea 🍵 beer 🍺 beers 🍻 wine 🍷 cocktail 🍸 champagne 🍾 cheers 🥂 juice 🧃 salt 🧂
soccer ⚽ basketball 🏀 football 🏈 tennis 🎾 volleyball 🏐 ping_pong 🏓 goal 🥅 golf ⛳ ski 🎿 trophy 🏆 medal 🏅 first 🥇
second 🥈 third 🥉 dart 🎯 game 🎮 dice 🎲 puzzle 🧩 chess ♟️ art 🎨 microphone 🎤 headphones 🎧 guitar 🎸 piano 🎹 drum 🥁
violin 🎻 movie 🎬 ticket 🎫
car 🚗 taxi 🚕 bus 🚌 ambulance 🚑 fire_engine 🚒 truck 🚚 tractor 🚜 bike 🚲 train 🚆 metro 🚇 airplane ✈️ rocket 🚀 ufo 🛸
helicopter 🚁 boat ⛵ ship 🚢 anchor ⚓ construction 🚧 fuel ⛽ map 🗺️ mountain ⛰️ camping 🏕️ beach 🏖️ house 🏠 office 🏢
hospital 🏥 school 🏫 castle 🏰 tent ⛺ sunrise 🌅 city 🏙️
watch ⌚ phone 📱 laptop 💻 keyboard ⌨️ desktop 🖥️ printer 🖨️ floppy 💾 disk 💿 camera 📷 video 📹 tv 📺 radio 📻 alarm ⏰
hourglass ⏳ stopwatch ⏱️ battery 🔋 plug 🔌 bulb 💡 flashlight 🔦 candle 🕯️ money 💰 dollar 💵 card 💳 gem 💎 scales ⚖️ wrench 🔧
hammer 🔨 tools 🛠️ gear ⚙️ magnet 🧲 bomb 💣 knife 🔪 shield 🛡️ pill 💊 syringe 💉 microscope 🔬 telescope 🔭 satellite 📡 key 🔑
lock 🔒 unlock 🔓 door 🚪 bed 🛏️ toilet 🚽 shower 🚿 broom 🧹 basket 🧺 gift 🎁 balloon 🎈 tada 🎉 confetti 🎊 email 📧 envelope ✉️
package 📦 mailbox 📫 page 📄 chart 📈 chart_down 📉 bar_chart 📊 calendar 📅 clipboard 📋 pin 📌 paperclip 📎 scissors ✂️ pencil ✏️
pen 🖊️ memo 📝 folder 📁 books 📚 book 📖 bookmark 🔖 link 🔗 search 🔍 bell 🔔 no_bell 🔕 loudspeaker 📢 mega 📣 trash 🗑️
crown 👑 hat 🎩 glasses 👓 shirt 👕 shoe 👟 umbrella_closed 🌂 crystal_ball 🔮 teddy 🧸 thread 🧵
check ✅ check_mark ✔️ x ❌ cross ❌ warning ⚠️ stop 🛑 no_entry ⛔ forbidden 🚫 question ❓ exclamation ❗ bangbang ‼️ recycle ♻️
red_circle 🔴 orange_circle 🟠 yellow_circle 🟡 green_circle 🟢 blue_circle 🔵 white_circle ⚪ black_circle ⚫ arrow_up ⬆️
arrow_down ⬇️ arrow_left ⬅️ arrow_right ➡️ repeat 🔁 refresh 🔄 play ▶️ pause ⏸️ fast_forward ⏩ plus ➕ minus ➖ infinity ♾️
new 🆕 free 🆓 ok 🆗 cool 🆒 sos 🆘 info ℹ️ copyright ©️ tm ™️ sparkles ✨ musical_note 🎵 notes 🎶 peace ☮️ white_flag 🏳️
checkered_flag 🏁 rainbow_flag 🏳️‍🌈 pirate_flag 🏴‍☠️
`;

/** @type {ReadonlyMap<string, string>} from name to emoji */
export const EMOJI = (() => {
  const words = TABLE.trim().split(/\s+/);
  /** @type {Map<string, string>} */
  const map = new Map();
  for (let at = 0; at + 1 < words.length; at += 2) map.set(words[at], words[at + 1]);
  return map;
})();
