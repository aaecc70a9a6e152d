"""Common English words of three to six letters, for the printed text."""
WORDS = """
able acid aged also area army away baby back bake ball band bank base bath beach bean bear beat bed bell belt best big bike
bill bird blue boat body bold bolt bone book boot born boss both bowl box boy brave bread brick bride brief bring brown brush
build burn bus busy buy cake call calm came camp can candle cap car card care cart case cash cat cave chain chair chalk cheap
check cheese chest child city clay clean clear clock close cloud club coal coast coat code coffee coin cold cook cool copy corn
cost cow cream crown cry cup cut dance dark date dawn day deep deer desk dog door down draw dream dress drink drive drop drum
dry duck dust eagle early earth east easy egg end enter even exit eye face fact fair fall farm fast father field film find fine
fire first fish five flag flat floor flow flower fly food foot forest fork form fox free fresh frog fruit full fun game garden
gate gift girl give glad glass goat gold good grape grass great green grey group grow guest hair half hall hand happy hard hat
head health heat hello help hen herb high hill hold hole home honey hope horn horse hot hotel hour house ice idea inch ink iron
island jam jazz jelly job join joke judge juice jump jungle keep key kid kind king kiss kite knee knife lake lamb lamp land
large last late law lead leaf learn left lemon less life lift light lime line lion list live lock long look lost loud love low
luck lunch magic mail main map mark market mask math meal meat melon menu metal mice mile milk mind mint mist mix money moon
more moss mouse move movie much mud museum music nail name near neck nest new news next nice night nine noise north nose note
now nut oak ocean off oil old olive one only open orange oval oven over owl page paint pair palm panda paper park part party
path peace pear pen people pepper phone photo piano pie pig pilot pine pink pizza place plan plane plant play plum point pool
post pot pride prize pull pump pure push queen quick quiet quiz rabbit race radio rain read real red rest rice rich ride right
ring rise river road rock roof room root rope rose round rule run safe sail salad sale salt sand save school sea seat seed sell
send seven shade shape shark sheep shell ship shirt shoe shop short show sign silk silver simple sing six size skin sky sleep
slow small smile smoke snake snow soap sock soft soil song soup south space spoon sport spring star start steam steel stone
stop store storm story street strong sugar summer sun sweet swim table tail take tall tape taste tax taxi tea team tent test
thank three ticket tiger time tin toast today tool top tour towel tower town toy track train tray tree trip truck true tube
turn twig two uncle under up urban use valley van vase vest video view violin visit voice wagon wait walk wall want warm wash
water wave way wax weak week well west wet whale wheat wheel white wide wild win wind window wine wing winter wise wolf wood
wool word work world worm yard year yellow yes young zebra zero zone zoo
""".split()
